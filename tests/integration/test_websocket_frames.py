"""The cases of RFC 6455 at a gateway's socket, byte for byte: framing, fragments, control frames, closing, UTF-8."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import uvloop

from shared import errors
from tests.support.gateways import EchoWorker, RawWebSocket, client_frame, running_gateway
from tests.support.waiting import until

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
PROTOCOL, INVALID_TEXT, TOO_BIG = errors.PROTOCOL.code, errors.INVALID_TEXT.code, errors.TOO_BIG.code
START = b'{"request":true,"id":1,"method":"m","data":"'
END = b'"}'


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@dataclass
class Setup:
    port: int
    worker: EchoWorker


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with running_gateway() as (gateway, worker):
        yield Setup(gateway.port, worker)


def request(data: bytes = b"x") -> bytes:
    """A request whose answer is its data."""
    return START + data + END


def fragments(*parts: bytes, opcode: int = TEXT) -> bytes:
    """A message in fragments."""
    first, *more, last = parts
    middle = b"".join(client_frame(CONTINUATION, part) for part in more)
    return client_frame(opcode, first) + middle + client_frame(FIN | CONTINUATION, last)


async def answer_of(socket: RawWebSocket) -> object:
    """The next text frame, decoded."""
    while True:
        opcode, payload = await socket.receive()
        assert opcode != CLOSE, payload
        if opcode == TEXT:
            return json.loads(payload)


async def answered(setup: Setup, sent: bytes, data: bytes, *, in_pieces: bool = False) -> None:
    """Sends bytes that hold one request, and expects its data as the answer."""
    socket = await RawWebSocket.open(setup.port)
    for piece in [bytes([byte]) for byte in sent] if in_pieces else [sent]:
        socket.send(piece)
        await socket.writer.drain()
    expected = {"response": True, "id": 1, "ok": True, "data": json.loads(b'"' + data + b'"')}
    assert await answer_of(socket) == expected
    socket.close()


async def closed(setup: Setup, sent: bytes) -> int:
    """Sends bytes and returns the code with which the gateway closes."""
    socket = await RawWebSocket.open(setup.port)
    socket.send(sent)
    return await socket.closed_with()


# --- messages that are taken ------------------------------------------------------------------------------------

WHOLE = request()
UMLAUT = request("ä".encode())
IN_CHARACTER = UMLAUT.index(b"\xc3") + 1

TAKEN = {
    "one frame": (client_frame(FIN | TEXT, WHOLE), b"x"),
    "mask of zeros": (client_frame(FIN | TEXT, WHOLE, mask=bytes(4)), b"x"),
    "two fragments": (fragments(WHOLE[:10], WHOLE[10:]), b"x"),
    "fragments of one byte": (fragments(*(bytes([byte]) for byte in WHOLE)), b"x"),
    "empty fragments": (fragments(b"", WHOLE[:10], b"", WHOLE[10:], b""), b"x"),
    "fragments within a character": (fragments(UMLAUT[:IN_CHARACTER], UMLAUT[IN_CHARACTER:]), "ä".encode()),
    "ping between fragments": (
        client_frame(TEXT, WHOLE[:10]) + client_frame(FIN | PING, b"p") + client_frame(FIN, WHOLE[10:]),
        b"x",
    ),
    "pong between fragments": (
        client_frame(TEXT, WHOLE[:10]) + client_frame(FIN | PONG) + client_frame(FIN, WHOLE[10:]),
        b"x",
    ),
    "pong that nobody asked for": (client_frame(FIN | PONG, b"pong") + client_frame(FIN | TEXT, WHOLE), b"x"),
}


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(("sent", "data"), TAKEN.values(), ids=TAKEN)
async def test_a_message_in_any_valid_framing_is_taken(
    setup: Setup, sent: bytes, data: bytes, in_pieces: bool
) -> None:
    await answered(setup, sent, data, in_pieces=in_pieces)


@pytest.mark.parametrize("size", [125, 126, 127, 128, 65535, 65536, 65537])
async def test_a_message_of_any_length_is_taken(setup: Setup, size: int) -> None:
    data = b"x" * (size - len(request(b"")))
    await answered(setup, client_frame(FIN | TEXT, request(data)), data)


@pytest.mark.parametrize(
    "text", ["κόσμε", "\u0080", "\u07ff", "\u0800", "\uffff", "\U00010000", "\U0010ffff", "\ud7ff\ue000", "\ufffe"]
)
async def test_every_character_of_unicode_is_taken(setup: Setup, text: str) -> None:
    data = text.encode()
    await answered(setup, client_frame(FIN | TEXT, request(data)), data)


@pytest.mark.parametrize(
    "sent",
    [client_frame(FIN | BINARY, b"\x00\xff"), fragments(b"\x00", b"\xff", opcode=BINARY), client_frame(FIN | TEXT)],
    ids=["binary", "binary in fragments", "empty text"],
)
async def test_a_message_that_is_no_json_text_is_answered_400(setup: Setup, sent: bytes) -> None:
    socket = await RawWebSocket.open(setup.port)
    socket.send(sent + client_frame(FIN | TEXT, WHOLE))
    complaint = await answer_of(socket)
    assert isinstance(complaint, dict)
    assert complaint["data"]["errorCode"] == 400
    assert (await answer_of(socket)) == {"response": True, "id": 1, "ok": True, "data": "x"}
    socket.close()


# --- control frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"ping", b"\x00\xff", b"x" * 125], ids=["empty", "text", "bytes", "125"])
async def test_a_ping_is_answered_with_its_payload(setup: Setup, payload: bytes) -> None:
    socket = await RawWebSocket.open(setup.port)
    socket.send(client_frame(FIN | PING, payload))
    assert await socket.receive() == (PONG, payload)
    socket.close()


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
)
async def test_a_close_is_answered_with_its_code(setup: Setup, code: int) -> None:
    assert await closed(setup, client_frame(FIN | CLOSE, code.to_bytes(2))) == code


@pytest.mark.parametrize("reason", [b"", b"bye", "ä".encode(), b"x" * 123], ids=["none", "text", "umlaut", "123"])
async def test_a_close_may_have_a_reason(setup: Setup, reason: bytes) -> None:
    assert await closed(setup, client_frame(FIN | CLOSE, b"\x03\xe8" + reason)) == 1000


async def test_a_close_without_a_code_is_answered(setup: Setup) -> None:
    assert await closed(setup, client_frame(FIN | CLOSE)) in (1000, 1005)


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65535])
async def test_a_close_code_that_may_not_be_sent_is_a_protocol_error(setup: Setup, code: int) -> None:
    assert await closed(setup, client_frame(FIN | CLOSE, code.to_bytes(2))) == PROTOCOL


async def test_frames_after_a_close_are_ignored(setup: Setup) -> None:
    socket = await RawWebSocket.open(setup.port)
    socket.send(client_frame(FIN | CLOSE, b"\x03\xe8") + client_frame(FIN | TEXT, WHOLE))
    assert (await socket.receive())[0] == CLOSE
    assert await socket.reader.read() == b""
    socket.close()


# --- what ends the connection -----------------------------------------------------------------------------------

RESERVED = {
    f"reserved bit {bit:#x} on opcode {opcode}": client_frame(FIN | bit | opcode, payload)
    for bit in (RSV1, RSV2, RSV3, RSV1 | RSV2 | RSV3)
    for opcode, payload in ((TEXT, WHOLE), (BINARY, b"x"), (PING, b""), (PONG, b"x"), (CLOSE, b"\x03\xe8"))
}
OPCODES = {
    f"opcode {opcode}": client_frame(FIN | opcode, payload)
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    for payload in (b"",)
}
BROKEN = {
    **RESERVED,
    **OPCODES,
    "reserved bit on a continuation": client_frame(TEXT, b"x") + client_frame(FIN | RSV1, b"x"),
    "no mask": client_frame(FIN | TEXT, WHOLE, mask=None),
    "no mask on a ping": client_frame(FIN | PING, b"", mask=None),
    "ping of 126 bytes": client_frame(FIN | PING, b"x" * 126),
    "pong of 126 bytes": client_frame(FIN | PONG, b"x" * 126),
    "close of 126 bytes": client_frame(FIN | CLOSE, b"\x03\xe8" + b"x" * 124),
    "close of one byte": client_frame(FIN | CLOSE, b"\x03"),
    "ping in fragments": client_frame(PING, b"x") + client_frame(FIN, b"y"),
    "close in fragments": client_frame(CLOSE, b"\x03\xe8"),
    "continuation of nothing": client_frame(FIN | CONTINUATION, WHOLE),
    "unfinished continuation of nothing": client_frame(CONTINUATION, WHOLE),
    "continuation after the last fragment": fragments(WHOLE[:9], WHOLE[9:]) + client_frame(FIN, b"x"),
    "text within fragments": client_frame(TEXT, b"x") + client_frame(FIN | TEXT, WHOLE),
    "binary within fragments": client_frame(TEXT, b"x") + client_frame(FIN | BINARY, b"x"),
    "text within binary fragments": client_frame(BINARY, b"x") + client_frame(FIN | TEXT, WHOLE),
    "short length in 16 bits": client_frame(FIN | TEXT, b"x" * 125, size=b"\x7e\x00\x7d"),
    "short length in 64 bits": client_frame(FIN | TEXT, b"x" * 126, size=b"\x7f" + (126).to_bytes(8)),
    "negative length": client_frame(FIN | TEXT, b"", size=b"\x7f\x80" + bytes(7)),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_a_broken_stream_is_closed_with_1002(setup: Setup, sent: bytes) -> None:
    assert await closed(setup, sent) == PROTOCOL


@pytest.mark.parametrize(
    "sent",
    [
        client_frame(FIN | TEXT, b"", size=b"\x7f" + (2**20 + 1).to_bytes(8)),
        client_frame(FIN | BINARY, b"", size=b"\x7f" + (2**62).to_bytes(8)),
        fragments(b"x" * 600_000, b"x" * 600_000),
        fragments(b"x" * 600_000, b"x" * 600_000, opcode=BINARY),
    ],
    ids=["text", "binary", "fragments", "binary fragments"],
)
async def test_a_message_above_1_mib_is_closed_with_1009(setup: Setup, sent: bytes) -> None:
    assert await closed(setup, sent) == TOO_BIG


NOT_UTF8 = {
    "lone continuation": b"\x80",
    "continuations": b"\x80\xbf\x80",
    "0xFE": b"\xfe",
    "0xFF": b"\xff",
    "overlong slash of 2 bytes": b"\xc0\xaf",
    "overlong slash of 3 bytes": b"\xe0\x80\xaf",
    "overlong slash of 4 bytes": b"\xf0\x80\x80\xaf",
    "overlong null": b"\xc0\x80",
    "first surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "5 bytes": b"\xf8\x88\x80\x80\x80",
    "6 bytes": b"\xfc\x84\x80\x80\x80\x80",
    "unfinished 2 bytes": b"\xc3",
    "unfinished 3 bytes": b"\xe2\x82",
    "unfinished 4 bytes": b"\xf0\x9f\x98",
    "latin 1": b"Zo\xeb",
}


@pytest.mark.parametrize("data", NOT_UTF8.values(), ids=NOT_UTF8)
async def test_text_that_is_not_utf8_is_closed_with_1007(setup: Setup, data: bytes) -> None:
    for sent in (
        client_frame(FIN | TEXT, request(data)),
        client_frame(FIN | TEXT, data),
        fragments(request(data)[: len(START) + 1], request(data)[len(START) + 1 :]),
    ):
        assert await closed(setup, sent) == INVALID_TEXT


async def test_a_close_reason_that_is_not_utf8_is_closed_with_1007(setup: Setup) -> None:
    assert await closed(setup, client_frame(FIN | CLOSE, b"\x03\xe8\xff")) == INVALID_TEXT


BREAKERS = {
    "text that is not UTF-8": client_frame(FIN | TEXT, b"\xff"),
    "fragments that are not UTF-8": fragments(b"\xc3", b"("),
    "reserved bit on a ping": client_frame(FIN | RSV1 | PING),
    "close code that may not be sent": client_frame(FIN | CLOSE, (1006).to_bytes(2)),
    "close code zero": client_frame(FIN | CLOSE, bytes(2)),
    "unknown opcode": client_frame(FIN | 3),
}


@pytest.mark.parametrize("sent", BREAKERS.values(), ids=BREAKERS)
async def test_a_broken_stream_ends_a_resumable_session(setup: Setup, sent: bytes) -> None:
    """Or the resumed client would send the same again for ever."""
    socket = await RawWebSocket.open(setup.port, "/?roomId=r&peerName=p&resumable=1")
    assert await answer_of(socket)
    assert setup.worker.known
    socket.send(sent)
    assert await socket.closed_with() in (PROTOCOL, INVALID_TEXT)
    await until(lambda: not setup.worker.known)
