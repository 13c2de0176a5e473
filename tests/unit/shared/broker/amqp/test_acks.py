"""Which acknowledgements of a channel are sent, how, and when."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.broker.amqp import frames
from shared.broker.amqp.acks import Acks
from shared.broker.amqp.writer import FrameWriter
from tests.unit.shared.broker.amqp.fake_transport import FakeTransport, turn


@pytest.fixture
async def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
async def acks(transport: FakeTransport) -> Acks:
    """Acknowledgements that do not wait for each other."""
    return Acks(3, FrameWriter(transport, delay=0), prefetch=64)


async def test_acks_of_one_turn_are_sent_as_one(acks: Acks, transport: FakeTransport) -> None:
    for tag in (1, 2, 3):
        acks.finish(tag)
    await turn()

    assert transport.acks() == [(3, True)]


async def test_early_ack_is_sent_alone_and_never_repeated(acks: Acks, transport: FakeTransport) -> None:
    acks.finish(3)
    await turn()
    assert transport.acks() == [(3, False)]

    acks.finish(1)
    acks.finish(2)
    acks.finish(3)
    await turn()

    assert transport.acks() == [(2, True)]


async def test_acks_wait_for_each_other_and_leave_with_other_frames(transport: FakeTransport) -> None:
    writer = FrameWriter(transport, delay=60)
    acks = Acks(3, writer, prefetch=64)
    for tag in (1, 2):
        acks.finish(tag)
        await turn()
    assert transport.acks() == []

    writer.write(frames.ack(4, 9, multiple=False))
    await turn()
    assert transport.acks() == [(9, False), (2, True)]

    acks.finish(3)
    writer.collect()
    await turn()
    assert transport.acks() == [(3, False)]


async def test_ack_of_a_quarter_of_the_prefetch_is_sent_at_once(transport: FakeTransport) -> None:
    acks = Acks(3, FrameWriter(transport, delay=60), prefetch=8)
    for tag in (1, 2):
        acks.finish(tag)
        await turn()
    assert transport.acks() == [(2, True)]

    acks.finish(3)
    acks.finish(4)
    await turn()
    assert transport.acks() == [(4, True)]


async def test_closed_channel_sends_no_ack(acks: Acks, transport: FakeTransport) -> None:
    acks.finish(1)
    acks.closed = True
    acks.finish(2)
    await asyncio.sleep(0.001)
    await turn()

    assert transport.acks() == []


async def test_acks_held_by_a_paused_transport_are_not_sent_after_closing(transport: FakeTransport) -> None:
    writer = FrameWriter(transport, delay=0)
    acks = Acks(3, writer, prefetch=64)
    writer.pause()
    acks.finish(1)
    await asyncio.sleep(0.001)
    await turn()

    acks.closed = True
    writer.resume()
    await turn()

    assert transport.acks() == []


STEPS = st.one_of(
    st.tuples(st.just("finish"), st.integers(1, 30)),
    st.tuples(st.sampled_from(["pause", "resume", "stop_delaying", "collect", "turn", "piece"]), st.just(0)),
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=60))
async def test_every_ack_is_sent_once_whatever_happens_meanwhile(steps: list[tuple[str, int]]) -> None:
    transport = FakeTransport()
    writer = FrameWriter(transport, delay=0)
    acks = Acks(3, writer, prefetch=16)
    finished = [tag for step, tag in steps if step == "finish"]
    for step, tag in steps:
        match step:
            case "finish":
                acks.finish(tag)
            case "turn":
                await turn()
            case "piece":
                writer.write(b"")
            case _:
                getattr(writer, step)()
    for tag in set(range(1, 31)) - set(finished):
        acks.finish(tag)
    writer.resume()
    await asyncio.sleep(0.001)
    await turn()

    unacked = set(range(1, 31))
    for tag, multiple in transport.acks():
        assert tag in unacked, "RabbitMQ closes the channel over a tag that it does not know"
        unacked -= {it for it in unacked if it <= tag} if multiple else {tag}
    assert not unacked
