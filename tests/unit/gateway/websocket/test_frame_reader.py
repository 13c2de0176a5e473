"""Frames on their way from a socket to picows: one by one, counted before they are handled, long ones in pieces."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.websocket.frame_reader import BYTES_AFTER_CLOSE, CONTROL_BYTES, PIECE_BYTES, READ_BYTES, FrameReader

CONTINUATION, TEXT, CLOSE, PING = 0x0, 0x1, 0x8, 0x9
FIN = 0x80


def frame(first: int, payload: bytes = b"", mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A frame of a client; `first` is FIN, reserved bits and opcode."""
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65536:
        head = bytes([first, 0xFE]) + size.to_bytes(2)
    else:
        head = bytes([first, 0xFF]) + size.to_bytes(8)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Picows:
    """Splits what it is given into frames, and keeps the most bytes that it had to hold."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.most_held = 0
        self.lost = False
        self._buffer = bytearray(1792)
        self._filled = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self.most_held = max(self.most_held, self._filled)
        while (size := self._first_frame()) and size <= self._filled:
            rest = self._buffer[size : self._filled]
            self._filled = len(rest)
            self._buffer[: len(rest)] = rest
        if self._filled == len(self._buffer):
            self._buffer = self._buffer + bytes(len(self._buffer))

    def _first_frame(self) -> int:
        """The size of the first frame, which is kept if it is complete; 0 if its header is not."""
        data = bytes(self._buffer[: self._filled])
        if len(data) < 2:
            return 0
        size, start = data[1] & 0x7F, 2
        assert data[1] & 0x80
        if size >= 126:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return 0
            size = int.from_bytes(data[2:start])
        mask, payload = data[start : start + 4], data[start + 4 : start + 4 + size]
        if len(mask) == 4 and len(payload) == size:
            self.frames.append((data[0], bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))))
        return start + 4 + size

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def eof_received(self) -> bool:
        return False


class Transport:
    """The transport below, whose reader a test feeds."""

    def __init__(self, picows: Picows) -> None:
        self.protocol: Any = picows
        self.reading = True
        self.closing = False

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing


@dataclass
class WebSocket:
    underlying_transport: Transport
    is_close_frame_sent: bool = False
    is_secure: bool = False


@dataclass
class Receiver:
    """A socket that stops the reader at the frame number `pauses_at`, and skips frames whose opcode is in `skips`."""

    pauses_at: int = 0
    skips: frozenset[int] = frozenset()
    closing: bool = False
    seen: list[tuple[int, int]] = field(default_factory=list)
    bytes_in: int = 0
    errors: int = 0
    reader: FrameReader | None = None

    def bytes_received(self, size: int) -> None:
        self.bytes_in += size

    def frame_begins(self, opcode: int, size: int) -> bool:
        self.seen.append((opcode, size))
        if len(self.seen) == self.pauses_at and self.reader is not None:
            self.reader.pause()
        return opcode not in self.skips

    def protocol_error(self) -> None:
        self.errors += 1
        self.closing = True

    def note_close_by_picows(self) -> None:
        self.closing = True


@dataclass
class Setup:
    receiver: Receiver
    picows: Picows
    transport: Transport
    reader: FrameReader

    def feed(self, data: bytes) -> int:
        """Lets the reader read until all is read or it has stopped; returns how much was read."""
        at = 0
        while at < len(data) and self.transport.reading:
            buffer = self.reader.get_buffer(-1)
            size = min(len(buffer), len(data) - at)
            buffer[:size] = data[at : at + size]
            self.reader.buffer_updated(size)
            at += size
        return at


def made(receiver: Receiver | None = None) -> Setup:
    receiver = receiver or Receiver()
    picows = Picows()
    transport = Transport(picows)
    reader = FrameReader(receiver, WebSocket(transport))  # type: ignore[arg-type]
    receiver.reader = reader
    return Setup(receiver, picows, transport, reader)


def message(frames: list[tuple[int, bytes]]) -> bytes:
    return b"".join(payload for _, payload in frames)


def test_short_frames_pass_unchanged() -> None:
    setup = made()
    sent = [(FIN | TEXT, b""), (FIN | PING, b"p"), (TEXT, b"x" * 125), (CONTINUATION, b"y" * 126), (FIN, b"z" * 4096)]
    setup.feed(b"".join(frame(*each) for each in sent))
    assert setup.picows.frames == sent
    assert setup.receiver.seen == [(first & 0x0F, len(payload)) for first, payload in sent]


@pytest.mark.parametrize("first", [FIN | TEXT, TEXT, FIN | CONTINUATION, CONTINUATION])
@pytest.mark.parametrize("size", [PIECE_BYTES + 1, PIECE_BYTES + 125, PIECE_BYTES + 126, 70_000, 1_000_000])
def test_long_frame_passes_in_pieces_of_one_message(first: int, size: int) -> None:
    setup = made()
    payload = bytes(at % 251 for at in range(size))
    setup.feed(frame(first, payload) + frame(FIN | PING, b"next"))
    *pieces, ping = setup.picows.frames
    assert message(pieces) == payload
    assert max(len(piece) for _, piece in pieces) == PIECE_BYTES
    assert pieces[0][0] == first & 0x0F
    assert all(kind == CONTINUATION for kind, _ in pieces[1:-1])
    assert pieces[-1][0] == CONTINUATION | first & FIN
    assert ping == (FIN | PING, b"next")
    assert setup.receiver.seen == [(first & 0x0F, size), (PING, 4)]
    assert setup.picows.most_held <= 2 * PIECE_BYTES


@given(
    st.lists(
        st.tuples(
            st.sampled_from([FIN | TEXT, FIN | PING, TEXT, FIN]), st.sampled_from([0, 1, 125, 126, 4096, 4300])
        ),
        max_size=8,
    ),
    st.lists(st.sampled_from([1, 2, 13, 500, 5000]), max_size=20),
)
def test_frames_pass_whatever_the_sizes_of_the_reads(frames: list[tuple[int, int]], reads: list[int]) -> None:
    setup = made()
    frames = [(first, min(size, CONTROL_BYTES) if first == FIN | PING else size) for first, size in frames]
    data = b"".join(frame(first, bytes([at]) * size) for at, (first, size) in enumerate(frames))
    for size in reads:
        setup.feed(data[:size])
        data = data[size:]
    setup.feed(data)
    assert setup.receiver.seen == [(first & 0x0F, size) for first, size in frames]
    assert message(setup.picows.frames) == b"".join(bytes([at]) * size for at, (_, size) in enumerate(frames))


def test_a_read_is_bounded() -> None:
    assert len(made().reader.get_buffer(-1)) == READ_BYTES


def test_skipped_frames_do_not_reach_picows() -> None:
    setup = made(Receiver(skips=frozenset({PING})))
    setup.feed(frame(FIN | PING, b"p") * 1000 + frame(FIN | TEXT, b"x"))
    assert setup.picows.frames == [(FIN | TEXT, b"x")]
    assert len(setup.receiver.seen) == 1001


async def test_paused_reader_stops_between_two_frames_and_goes_on_there() -> None:
    setup = made(Receiver(pauses_at=3))
    frames = [(FIN | TEXT, bytes([number])) for number in range(10)]
    assert setup.feed(b"".join(frame(*each) for each in frames)) == 70
    assert setup.picows.frames == frames[:3]
    assert not setup.transport.reading
    setup.reader.resume()
    assert setup.picows.frames == frames[:3]
    await asyncio.sleep(0)
    assert setup.picows.frames == frames
    assert setup.transport.reading


async def test_reader_resumed_within_a_long_frame_passes_the_whole_of_it() -> None:
    setup = made(Receiver(pauses_at=1))
    payload = b"x" * 20_000
    data = frame(FIN | TEXT, payload)
    read = setup.feed(data)
    assert read < len(data)
    setup.reader.resume()
    await asyncio.sleep(0)
    setup.feed(data[read:])
    assert message(setup.picows.frames) == payload


async def test_reader_of_a_closed_transport_does_not_go_on() -> None:
    setup = made(Receiver(pauses_at=1))
    setup.feed(frame(FIN | TEXT, b"x") * 5)
    setup.transport.closing = True
    setup.reader.resume()
    await asyncio.sleep(0)
    assert len(setup.picows.frames) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x01x",
        b"\x89\x00",
        b"\x81\xfe\x00\x7d" + bytes(4),
        b"\x81\xff" + (65535).to_bytes(8) + bytes(4),
        b"\x81\xff\x80" + bytes(11),
        frame(FIN | PING, b"x" * 126),
        frame(FIN | CLOSE, b"\x03\xe8" + b"x" * (1 << 20)),
        bytes([FIN | PING, 0xFF]) + (1 << 40).to_bytes(8) + bytes(4),
        frame(PING),
        frame(FIN | 0x3),
        bytes([FIN | 0xB, 0xFF]) + (1 << 40).to_bytes(8) + bytes(4),
    ],
    ids=[
        "no mask",
        "no mask and no payload",
        "125 in 16 bits",
        "65535 in 64 bits",
        "negative size",
        "ping of 126 bytes",
        "close of 1 MiB",
        "ping that claims 1 TiB",
        "ping in fragments",
        "unknown opcode",
        "unknown control frame that claims 1 TiB",
    ],
)
def test_frame_against_the_specification_is_reported_and_skipped(data: bytes) -> None:
    setup = made()
    setup.feed(data)
    assert setup.receiver.errors == 1
    assert not setup.picows.frames


def test_after_a_close_only_the_clients_close_frame_passes() -> None:
    setup = made(Receiver(closing=True))
    setup.feed(frame(FIN | TEXT, b"x" * 50_000) + frame(FIN | PING) + frame(FIN | CLOSE, b"\x03\xe8"))
    assert setup.picows.frames == [(FIN | CLOSE, b"\x03\xe8")]


def test_client_that_goes_on_after_a_close_is_not_read_for_long() -> None:
    setup = made(Receiver(closing=True))
    pings = frame(FIN | PING) * 100_000
    assert setup.feed(pings) < 0.05 * len(pings)
    assert not setup.transport.reading
    setup = made(Receiver(closing=True))
    assert setup.feed(bytes([FIN | TEXT, 0xFF]) + (1 << 30).to_bytes(8) + bytes(4 * BYTES_AFTER_CLOSE)) <= (
        BYTES_AFTER_CLOSE + READ_BYTES
    )


def test_client_that_repeats_its_close_frame_is_not_read_any_more() -> None:
    setup = made(Receiver(closing=True))
    setup.feed(frame(FIN | CLOSE, b"\x03\xe7") * 1_000)
    assert 1 <= len(setup.picows.frames) <= 3
    assert not setup.transport.reading


def test_lost_connection_is_passed_on() -> None:
    setup = made()
    setup.reader.connection_lost(None)
    assert setup.picows.lost
