"""The writer joins frames, delays sources, and holds frames back while its transport is paused."""

import pytest

from shared.broker.amqp.writer import FrameWriter
from tests.unit.shared.broker.amqp.fake_transport import FakeTransport, turn


@pytest.fixture
async def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
async def writer(transport: FakeTransport) -> FrameWriter:
    return FrameWriter(transport, delay=60)


async def test_pieces_of_one_turn_are_written_as_one(writer: FrameWriter, transport: FakeTransport) -> None:
    writer.write(b"a")
    writer.write(b"b")
    assert (transport.pieces, writer.waiting) == ([], 2)

    await turn()

    assert (transport.pieces, writer.waiting, writer.wrote) == ([b"ab"], 0, True)


async def test_source_waits_for_the_next_piece(writer: FrameWriter, transport: FakeTransport) -> None:
    writer.write_from(lambda: b"later")
    await turn()
    assert transport.pieces == []

    writer.write(b"a")
    await turn()

    assert transport.pieces == [b"alater"]


async def test_source_waits_no_longer_than_the_delay(transport: FakeTransport) -> None:
    writer = FrameWriter(transport, delay=0)
    writer.write_from(lambda: b"x")

    await turn()
    await turn()

    assert transport.pieces == [b"x"]


async def test_collected_source_is_written_before_what_follows(writer: FrameWriter, transport: FakeTransport) -> None:
    writer.write_from(lambda: b"acks ")
    writer.collect()
    writer.write(b"close")
    await turn()

    assert transport.pieces == [b"acks close"]


async def test_paused_transport_gets_nothing_until_it_resumes(writer: FrameWriter, transport: FakeTransport) -> None:
    answers = [b"stale", b"fresh"]
    writer.pause()
    writer.write(b"a")
    writer.write_from(lambda: answers[-1])
    writer.stop_delaying()
    await turn()
    assert (transport.pieces, writer.waiting) == ([], 1)

    writer.resume()
    await turn()

    assert transport.pieces == [b"afresh"]


async def test_pause_after_a_write_was_scheduled_holds_it_back(writer: FrameWriter, transport: FakeTransport) -> None:
    writer.write(b"a")
    writer.pause()
    await turn()
    assert transport.pieces == []

    writer.resume()
    await turn()
    assert transport.pieces == [b"a"]


async def test_flush_writes_to_a_paused_transport(writer: FrameWriter, transport: FakeTransport) -> None:
    writer.pause()
    writer.write(b"the reason")

    writer.flush()

    assert transport.pieces == [b"the reason"]


async def test_closed_transport_gets_nothing(writer: FrameWriter, transport: FakeTransport) -> None:
    writer.write(b"a")
    transport.close()
    await turn()

    assert (transport.pieces, writer.waiting) == ([], 0)


async def test_closed_writer_discards_waiting_frames(writer: FrameWriter, transport: FakeTransport) -> None:
    writer.write(b"a")
    writer.write_from(lambda: b"b")
    writer.close()
    await turn()

    assert (transport.pieces, writer.waiting) == ([], 0)
