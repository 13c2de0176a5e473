"""Makes packets as a hostile client may send them to a media port, by chance and a seed. No I/O."""

import random
import struct
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

Protection: TypeAlias = Literal["rtp", "rtcp", "none"]
"""How a packet is encrypted before it is sent."""

SSRCS: Final = (0, 1111, 2222, 2223, 3333, 0xFFFF_FFFF)
PAYLOAD_TYPES: Final = (100, 101, 102, 0, 72, 127)
STREAMS: Final = ((100, 1111), (101, 2222), (101, 2223), (102, 3333))
"""The payload type and SSRC of the streams that the engine knows."""
EXTENSION_IDS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15)
ONE_BYTE, TWO_BYTE = 0xBEDE, 0x1000
# What payloads begin with that the engine takes apart: VP8, VP9, H264 and AV1, key frames and others.
BEGINNINGS: Final = (
    b"\x90\xe0\x80\x01\x01\x10\x00\x00\x9d\x01\x2a\x10\x00\x10\x00",
    b"\x90\xa0\x81\x01\x01",
    b"\xfe\xaa\xaa\x18\x0a\x42\x00",
    b"\x8f\x80\x01\xff\xff\xff",
    b"\x18\x00\x10\x67\x42\x00\x1f\x00\x04\x68\xce\x3c\x80",
    b"\x7c\x85\xb8\x00",
    b"\x18\x0a\x0b\x00\x00\x00",
    b"",
)


class Packets:
    """A stream of hostile packets; the same seed gives the same packets."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numbers: dict[int, int] = {}

    def next(self) -> tuple[Protection, bytes, float]:
        """Returns a packet: how to protect it, its bytes, and the chance with which its protected form is changed."""
        kind = self._random.choices(
            ("rtp", "rtcp", "plain rtp", "plain rtcp", "stun", "dtls", "noise"), (40, 25, 5, 5, 8, 7, 10)
        )[0]
        match kind:
            case "rtp":
                return "rtp", self._rtp(), 0.3
            case "rtcp":
                return "rtcp", self._rtcp(), 0.3
            case "plain rtp":
                return "none", self._rtp(), 0.2
            case "plain rtcp":
                return "none", self._rtcp(), 0.2
            case "stun":
                return "none", self._stun(), 0.5
            case "dtls":
                return "none", self._dtls(), 0.5
            case _:
                return "none", self._bytes(1500), 0.0

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def changed(self, packet: bytes) -> bytes:
        """Returns the packet with some bits flipped, bytes cut, repeated or appended."""
        data = bytearray(packet)
        for _ in range(self._random.choice((1, 1, 2, 8))):
            match self._random.randrange(4):
                case 0 if data:
                    data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
                case 1:
                    del data[self._random.randrange(len(data) + 1) :]
                case 2:
                    data += self._bytes(64)
                case _ if data:
                    at = self._random.randrange(len(data))
                    data[at:at] = data[at : at + self._random.randrange(40)]
        return bytes(data[:2000])

    def _bytes(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randrange(most + 1))

    def _rtp(self) -> bytes:
        chance = self._random
        payload_type, ssrc = chance.choice(STREAMS)
        if chance.random() < 0.1:
            payload_type, ssrc = chance.choice(PAYLOAD_TYPES), chance.choice(SSRCS)
        step = 1 if chance.random() < 0.95 else chance.choice((0, 2, 40, -3, 3000, 30_000))
        number = self._numbers[ssrc] = (self._numbers.get(ssrc, chance.getrandbits(16)) + step) & 0xFFFF
        padding, extended, sources = chance.random() < 0.1, chance.random() < 0.6, chance.choice((0, 0, 0, 1, 15))
        first = 0x80 | padding << 5 | extended << 4 | sources
        kind = payload_type | (chance.random() < 0.3) << 7
        head = struct.pack("!BBHII", first, kind, number, 3000 * number, ssrc)
        body = chance.choice(BEGINNINGS) + self._bytes(chance.choice((0, 20, 200, 1100)))
        tail = bytes([chance.randrange(256)]) if padding else b""
        return head + bytes(4 * sources) + (self._extensions() if extended else b"") + body + tail

    def _extensions(self) -> bytes:
        chance = self._random
        profile = chance.choice((ONE_BYTE, ONE_BYTE, TWO_BYTE, TWO_BYTE | 7, chance.getrandbits(16)))
        values = b""
        for _ in range(chance.randrange(6)):
            number = chance.choice(EXTENSION_IDS)
            if profile == ONE_BYTE:
                length = chance.randrange(16)
                values += bytes([number << 4 | length]) + chance.randbytes(chance.choice((length + 1, length, 0)))
            else:
                length = chance.choice((0, 1, 2, 3, 8, 255))
                values += bytes([number, length]) + chance.randbytes(length)
        values += bytes(-len(values) % 4)
        words = len(values) // 4 if chance.random() < 0.9 else chance.getrandbits(16)
        return struct.pack("!HH", profile, words) + values

    def _rtcp(self) -> bytes:
        makers: tuple[Callable[[], bytes], ...] = (
            self._sender_report,
            self._receiver_report,
            self._feedback,
            self._congestion,
            self._other_rtcp,
        )
        packet = b"".join(self._random.choice(makers)() for _ in range(self._random.choice((1, 1, 2, 3))))
        return packet[:1400]

    def _sender_report(self) -> bytes:
        body = struct.pack("!I", self._ssrc()) + self._random.randbytes(20)
        return self._rtcp_packet(200, self._random.choice((0, 1, 31)), body + self._report_blocks())

    def _receiver_report(self) -> bytes:
        count = self._random.choice((0, 1, 2, 31))
        return self._rtcp_packet(201, count, struct.pack("!I", self._ssrc()) + self._report_blocks())

    def _report_blocks(self) -> bytes:
        blocks = range(self._random.choice((0, 1, 2)))
        return b"".join(struct.pack("!I", self._ssrc()) + self._random.randbytes(20) for _ in blocks)

    def _feedback(self) -> bytes:
        """NACK, PLI, FIR, REMB and those that nobody sends."""
        kind, form = self._random.choice((205, 206)), self._random.choice((1, 2, 3, 4, 8, 15, 31))
        body = struct.pack("!II", self._ssrc(), self._ssrc()) + self._random.choice((b"", b"REMB", self._bytes(24)))
        return self._rtcp_packet(kind, form, body + self._bytes(24))

    def _congestion(self) -> bytes:
        """Transport-wide feedback, whose counts and chunks contradict each other."""
        chance = self._random
        count = chance.choice((0, 1, 7, 14, 1000, 65_535))
        body = struct.pack(
            "!IIHHI", self._ssrc(), self._ssrc(), chance.getrandbits(16), count, chance.getrandbits(32)
        )
        chunks = b"".join(
            struct.pack("!H", chance.choice((0x3FFF, 0x1FFF, 0x9FFF, 0xFFFF, chance.getrandbits(16))))
            for _ in range(chance.choice((0, 1, 4, 16)))
        )
        return self._rtcp_packet(205, 15, body + chunks + self._bytes(20))

    def _other_rtcp(self) -> bytes:
        """SDES, BYE, APP, XR, and kinds that do not exist."""
        kind = self._random.choice((202, 203, 204, 207, 192, 208, 223))
        return self._rtcp_packet(kind, self._random.randrange(32), struct.pack("!I", self._ssrc()) + self._bytes(60))

    def _rtcp_packet(self, kind: int, count: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        words = len(body) // 4 if self._random.random() < 0.9 else self._random.getrandbits(16)
        return struct.pack("!BBH", 0x80 | count, kind, words) + body

    def _ssrc(self) -> int:
        return self._random.choice(SSRCS)

    def _stun(self) -> bytes:
        attributes = b""
        for _ in range(self._random.randrange(5)):
            value = self._bytes(40)
            kind = self._random.choice((0x0006, 0x0008, 0x0020, 0x0024, 0x0025, 0x8028, 0x8029, 0x802A, 0xC057))
            length = len(value) if self._random.random() < 0.8 else self._random.getrandbits(16)
            attributes += struct.pack("!HH", kind, length) + value + bytes(-len(value) % 4)
        kind, length = self._random.choice((0x0001, 0x0101, 0x0111, 0x0011)), len(attributes)
        return struct.pack("!HHI", kind, length, 0x2112_A442) + self._random.randbytes(12) + attributes

    def _dtls(self) -> bytes:
        """Records of handshakes, alerts and data, in the first epoch and the second."""
        chance = self._random
        records = b""
        for _ in range(chance.choice((1, 2))):
            content = self._bytes(200)
            length = len(content) if chance.random() < 0.8 else chance.getrandbits(16)
            version, epoch = chance.choice((0xFEFD, 0xFEFF, 0x0303)), chance.choice((0, 1, 2))
            records += struct.pack("!BHHHIH", chance.choice((20, 21, 22, 23, 63)), version, epoch, 0, 1, length)
            records += content
        return records
