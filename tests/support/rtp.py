"""Plain RTP over UDP, enough of it to tell one source of video from another."""

import asyncio
import struct
from typing import Any

import msgspec

FRAME = 3
INTERVAL = 0.002
# VP8 descriptors with picture id and temporal layer. The first byte of a frame then says whether it is a key frame.
KEY_FRAME = b"\x9d\x01\x2a"
FIRST, REST = b"\x90\xe0", b"\x80\xe0"


class Packet(msgspec.Struct, frozen=True):
    number: int
    timestamp: int
    ssrc: int
    payload: bytes

    @property
    def sent_as(self) -> int:
        """The SSRC that its sender gave it."""
        return self.payload[-1]

    @property
    def begins_key_frame(self) -> bool:
        return KEY_FRAME in self.payload


class Endpoint(asyncio.DatagramProtocol):
    """Plain RTP and RTCP on one UDP socket. PLIs are kept as the SSRC they are about."""

    def __init__(self) -> None:
        self.packets: asyncio.Queue[Packet] = asyncio.Queue()
        self.plis: asyncio.Queue[int] = asyncio.Queue()

    @property
    def port(self) -> int:
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        if 192 <= data[1] <= 223:
            self._rtcp(data)
            return
        flags, _, number, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        extension = 4 + 4 * struct.unpack_from("!H", data, 14)[0] if flags & 0x10 else 0
        self.packets.put_nowait(Packet(number, timestamp, ssrc, data[12 + extension :]))

    def _rtcp(self, data: bytes) -> None:
        while data:
            flags, kind, length = struct.unpack_from("!BBH", data)
            if (kind, flags & 0x1F) == (206, 1):
                self.plis.put_nowait(struct.unpack_from("!I", data, 8)[0])
            data = data[4 + 4 * length :]

    def close(self) -> None:
        self._transport.close()


class Sender(Endpoint):
    """Sends frames of each of its SSRCs, the first and those asked for by PLI being key frames."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._address = ("127.0.0.1", port)
        self._numbers: dict[int, int] = {}
        self._frames: dict[int, int] = {}
        self._wanted: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._tick()

    def send(self, *ssrcs: int, first: int) -> None:
        """Sends these SSRCs from now on, and no others. `first` is the number of their first packets."""
        self._numbers = dict.fromkeys(ssrcs, first & 0xFFFF)
        self._frames = dict.fromkeys(ssrcs, 0)
        self._wanted = set(ssrcs)

    async def asked_for_a_key_frame(self, ssrc: int) -> None:
        while await self.plis.get() != ssrc:
            pass

    def _rtcp(self, data: bytes) -> None:
        before = self.plis.qsize()
        super()._rtcp(data)
        if self.plis.qsize() > before:
            self._wanted |= set(self._numbers)

    def _tick(self) -> None:
        if self._transport.is_closing():
            return
        for ssrc in self._numbers:
            self._send_frame(ssrc)
        asyncio.get_running_loop().call_later(INTERVAL, self._tick)

    def _send_frame(self, ssrc: int) -> None:
        frame = self._frames[ssrc] = self._frames[ssrc] + 1
        timestamp = (ssrc << 24) + int(frame * INTERVAL * 90_000)
        for index in range(FRAME):
            number = self._numbers[ssrc] = (self._numbers[ssrc] + 1) & 0xFFFF
            kind = 96 if index < FRAME - 1 else 96 | 0x80
            header = struct.pack("!BBHII", 0x80, kind, number, timestamp, ssrc)
            descriptor = (REST if index else FIRST) + bytes([frame & 0x7F, frame & 0xFF, 0])
            begins_key_frame = not index and ssrc in self._wanted
            frame_bytes = b"\0\0\0" + KEY_FRAME if begins_key_frame else b"\1"
            self._transport.sendto(header + descriptor + frame_bytes + bytes([ssrc]) * 100, self._address)
        self._wanted.discard(ssrc)
