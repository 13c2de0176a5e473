"""Calls of the server API are published until they are answered or time out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.bus.api_calls import CALL_TIMEOUT, WAITING_CALLS, ApiCalls
from gateway.bus.partition_publisher import InputPublisher
from gateway.counters import Counters
from gateway.protocol.repeat_timer import FIRST_INTERVAL
from shared.errors import NotFound, Unavailable
from shared.protocol import bus
from shared.protocol.actions import CloseRoom, InspectRoom, decode
from tests.support.waiting import until


@dataclass
class CallHarness:
    calls: ApiCalls
    inputs: InputPublisher

    def published(self, room: str = "room") -> list[bus.Call]:
        """The calls that are published next in the room's partition."""
        items = [bus.decode_item(item) for item in self.inputs.publisher_of(room).take_batch()]
        assert all(isinstance(item, bus.Call) for item in items)
        return items

    @asynccontextmanager
    async def asked(self, key: str = "", room: str = "room") -> AsyncIterator["asyncio.Task[bytes]"]:
        task = asyncio.create_task(self.calls.call(room, InspectRoom(), key))
        publisher = self.inputs.publisher_of(room)
        before = len(publisher.sources)
        await until(lambda: len(publisher.sources) > before)
        yield task
        task.cancel()
        await asyncio.wait([task])

    def sweep(self, times: int) -> None:
        for _ in range(times):
            self.calls.sweep()


@pytest.fixture
def harness() -> CallHarness:
    inputs = InputPublisher(None, "gw-1", 4, Counters())  # type: ignore[arg-type]
    return CallHarness(ApiCalls("gw-1", inputs), inputs)


async def test_a_call_is_published_to_its_partition_and_answered(harness: CallHarness) -> None:
    async with harness.asked(room="salon") as task:
        [call] = harness.published("salon")
        assert (call.room, call.reply_to, decode(call.action)) == ("salon", "gw-1", InspectRoom())
        assert harness.calls.resolve(bus.CallAnswer(call.n, 200, b'{"name":"salon"}'))
        assert await task == b'{"name":"salon"}'
        assert harness.published("salon") == []
    assert harness.inputs.publisher_of("salon").sources == set()


async def test_an_error_answer_raises_the_error_of_its_code(harness: CallHarness) -> None:
    async with harness.asked() as task:
        [call] = harness.published()
        harness.calls.resolve(bus.CallAnswer(call.n, 404, b"room: none of that name"))
        with pytest.raises(NotFound, match="room: none of that name"):
            await task


async def test_callers_keys_and_random_keys_never_collide(harness: CallHarness) -> None:
    async with harness.asked("order-7"), harness.asked(), harness.asked():
        keys = [call.key for call in harness.published()]
    assert keys[0] == "key:order-7"
    assert all(key.startswith("call:") for key in keys[1:])
    assert len(set(keys)) == 3


async def test_an_unanswered_call_is_published_again_after_silence(harness: CallHarness) -> None:
    async with harness.asked():
        first = harness.published()
        harness.sweep(FIRST_INTERVAL - 1)
        assert harness.published() == []
        harness.sweep(1)
        assert harness.published() == first
        harness.sweep(2 * FIRST_INTERVAL - 1)
        assert harness.published() == []
        harness.sweep(1)
        assert harness.published() == first


async def test_an_unanswered_call_is_published_again_after_a_lost_broker(harness: CallHarness) -> None:
    async with harness.asked() as task:
        first = harness.published()
        harness.inputs.rewind()
        assert harness.published() == first
        harness.calls.resolve(bus.CallAnswer(first[0].n, 200, b"{}"))
        harness.inputs.rewind()
        await task
        assert harness.published() == []


async def test_an_unanswered_call_fails_after_its_time_limit(harness: CallHarness) -> None:
    async with harness.asked() as task:
        [call] = harness.published()
        harness.sweep(CALL_TIMEOUT + 1)
        with pytest.raises(Unavailable, match="in time"):
            await task
        assert harness.published() == []
        assert not harness.calls.resolve(bus.CallAnswer(call.n, 200, b"{}"))


async def test_a_second_answer_to_a_call_is_ignored(harness: CallHarness) -> None:
    async with harness.asked() as task:
        [call] = harness.published()
        assert harness.calls.resolve(bus.CallAnswer(call.n, 200, b"1"))
        assert not harness.calls.resolve(bus.CallAnswer(call.n, 200, b"2"))
        assert await task == b"1"


async def test_a_cancelled_call_is_removed(harness: CallHarness) -> None:
    async with harness.asked():
        pass
    assert harness.published() == []
    assert harness.inputs.publisher_of("room").sources == set()


async def test_calls_beyond_the_limit_are_rejected(harness: CallHarness) -> None:
    waiting = [asyncio.create_task(harness.calls.call("room", CloseRoom())) for _ in range(WAITING_CALLS)]
    await until(lambda: len(harness.inputs.publisher_of("room").sources) == WAITING_CALLS)
    with pytest.raises(Unavailable, match="too many calls"):
        await harness.calls.call("room", CloseRoom())
    harness.calls.fail_all()
    assert {str(why) for why in await asyncio.gather(*waiting, return_exceptions=True)} == {"this gateway is closing"}
