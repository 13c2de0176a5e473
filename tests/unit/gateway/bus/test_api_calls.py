"""Calls of the server API: kept until answered, published again after silence or loss, given up in the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.bus.api_calls import FIRST_PATIENCE, LIFETIME, WAITING_CALLS, Calls
from gateway.bus.partition_publisher import Uplink
from gateway.counters import Counts
from shared.errors import NotFound, Unavailable
from shared.protocol import bus
from shared.protocol.actions import CloseRoom, InspectRoom, decode
from tests.support.gateways import until


@dataclass
class Desk:
    calls: Calls
    uplink: Uplink

    def published(self, room: str = "room") -> list[bus.Call]:
        """What has not been seen yet of the room's partition."""
        items = [bus.decode_item(item) for item in self.uplink.lane(room).take()]
        assert all(isinstance(item, bus.Call) for item in items)
        return items  # type: ignore[return-value]

    @asynccontextmanager
    async def asked(self, key: str = "", room: str = "room") -> AsyncIterator["asyncio.Task[bytes]"]:
        task = asyncio.create_task(self.calls.do(room, InspectRoom(), key))
        lane = self.uplink.lane(room)
        before = len(lane.sources)
        await until(lambda: len(lane.sources) > before)
        yield task
        task.cancel()
        await asyncio.wait([task])

    def sweep(self, times: int) -> None:
        for _ in range(times):
            self.calls.sweep()


@pytest.fixture
def desk() -> Desk:
    uplink = Uplink(None, "gw-1", 4, Counts())  # type: ignore[arg-type]
    return Desk(Calls("gw-1", uplink), uplink)


async def test_a_call_goes_to_its_rooms_partition_and_its_answer_comes_back(desk: Desk) -> None:
    async with desk.asked(room="salon") as task:
        [call] = desk.published("salon")
        assert (call.room, call.reply_to, decode(call.action)) == ("salon", "gw-1", InspectRoom())
        assert desk.calls.answer(bus.CallAnswer(call.n, 200, b'{"name":"salon"}'))
        assert await task == b'{"name":"salon"}'
        assert desk.published("salon") == []
    assert desk.uplink.lane("salon").sources == set()


async def test_an_error_is_raised_as_what_it_is(desk: Desk) -> None:
    async with desk.asked() as task:
        [call] = desk.published()
        desk.calls.answer(bus.CallAnswer(call.n, 404, b"room: none of that name"))
        with pytest.raises(NotFound, match="room: none of that name"):
            await task


async def test_keys_of_callers_and_random_ones_never_meet(desk: Desk) -> None:
    async with desk.asked("order-7"), desk.asked(), desk.asked():
        keys = [call.key for call in desk.published()]
    assert keys[0] == "key:order-7"
    assert all(key.startswith("call:") for key in keys[1:])
    assert len(set(keys)) == 3


async def test_silence_publishes_the_same_call_again(desk: Desk) -> None:
    async with desk.asked():
        first = desk.published()
        desk.sweep(FIRST_PATIENCE - 1)
        assert desk.published() == []
        desk.sweep(1)
        assert desk.published() == first
        desk.sweep(2 * FIRST_PATIENCE - 1)
        assert desk.published() == []
        desk.sweep(1)
        assert desk.published() == first


async def test_a_lost_broker_publishes_it_again(desk: Desk) -> None:
    async with desk.asked() as task:
        first = desk.published()
        desk.uplink.lost()
        assert desk.published() == first
        desk.calls.answer(bus.CallAnswer(first[0].n, 200, b"{}"))
        desk.uplink.lost()
        await task
        assert desk.published() == []


async def test_nobody_waits_for_ever(desk: Desk) -> None:
    async with desk.asked() as task:
        [call] = desk.published()
        desk.sweep(LIFETIME + 1)
        with pytest.raises(Unavailable, match="in time"):
            await task
        assert desk.published() == []
        assert not desk.calls.answer(bus.CallAnswer(call.n, 200, b"{}"))


async def test_an_answer_that_comes_twice_counts_once(desk: Desk) -> None:
    async with desk.asked() as task:
        [call] = desk.published()
        assert desk.calls.answer(bus.CallAnswer(call.n, 200, b"1"))
        assert not desk.calls.answer(bus.CallAnswer(call.n, 200, b"2"))
        assert await task == b"1"


async def test_who_goes_away_leaves_nothing_behind(desk: Desk) -> None:
    async with desk.asked():
        pass
    assert desk.published() == []
    assert desk.uplink.lane("room").sources == set()


async def test_there_is_a_bound(desk: Desk) -> None:
    waiting = [asyncio.create_task(desk.calls.do("room", CloseRoom())) for _ in range(WAITING_CALLS)]
    await until(lambda: len(desk.uplink.lane("room").sources) == WAITING_CALLS)
    with pytest.raises(Unavailable, match="too many calls"):
        await desk.calls.do("room", CloseRoom())
    desk.calls.fail()
    assert {str(why) for why in await asyncio.gather(*waiting, return_exceptions=True)} == {"this gateway is closing"}
