"""Fuzzes the port of a running gateway: HTTP heads, queries of WebSockets, and the bytes of their frames."""

import asyncio
import struct
from collections import Counter
from random import Random
from typing import Final
from urllib.parse import quote

from devtools.cluster import Role, address, ready
from tests.fuzz.mutations import changed_bytes, changed_json, to_json
from tests.fuzz.room import SAMPLE_FRAMES

CONCURRENT: Final = 20
_PATIENCE: Final = 60.0
_SHOWN_LINES: Final = 30
_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
_MASK: Final = b"\x01\x02\x03\x04"


def _upgrade(query: str) -> bytes:
    return (
        f"GET /?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: protoo\r\n\r\n"
    ).encode()


_HEADS: Final = [
    _upgrade("roomId=a&peerName=b"),
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.0\r\n\r\n",
    b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
]
_NAMES: Final = (
    "a",
    "кино",
    "Zoë",
    "\0",
    " ",
    "",
    "a" * 128,
    "a" * 129,
    "\u202e",
    "%",
    "&",
    "=",
    "../x",
    "b\r\nX: y",
)


def _as_latin_1(name: str) -> str:
    return quote(name.encode("latin-1", "replace"))


def _query(rng: Random) -> str:
    """Returns a query with names that are percent-encoded, raw, or encoded as something else than UTF-8."""
    encode = rng.choice(
        (quote, str, lambda name: quote(name.encode("latin-1", "replace")), lambda name: quote(quote(name)))
    )
    fields = [("roomId", rng.choice(_NAMES)), ("peerName", rng.choice(_NAMES))]
    more = [
        ("resumable", "1"),
        ("resume", "x" * rng.choice((0, 10, 500))),
        ("ack", "0"),
        ("attempt", "1"),
        ("a", "b"),
    ]
    fields += [field for field in more if rng.random() < 0.4]
    fields += [rng.choice(fields)] if rng.random() < 0.2 else []
    rng.shuffle(fields)
    return "&".join(f"{name}={encode(value)}" for name, value in fields)


def frame(payload: bytes, opcode: int = 1, *, first: int = 0x80, masked: bool = True) -> bytes:
    """Returns a WebSocket frame. `first` has the bits FIN and RSV1-3 of its first byte."""
    size, mask_bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first | opcode, mask_bit | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first | opcode, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first | opcode, mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = (_MASK * (size // 4 + 1))[:size]
    return head + _MASK + (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)


def _frames(rng: Random) -> bytes:
    """Returns the bytes of one to six frames, valid or not."""
    parts = []
    for _ in range(rng.randint(1, 6)):
        text = to_json(changed_json(rng, rng.choice(SAMPLE_FRAMES))).encode()
        payload = rng.choice(
            (text, text, rng.randbytes(rng.randint(0, 130)), b"", b"\x03\xe8", b"\x03\xedbye", b"\xff\xfe")
        )
        opcode = rng.choice((1, 1, 1, 1, 0, 2, 8, 9, 10, 3, 11, 15))
        first = rng.choice((0x80, 0x80, 0x80, 0x00, 0xC0, 0x90))
        parts.append(frame(payload, opcode, first=first, masked=rng.random() < 0.95))
    data = b"".join(parts)
    return changed_bytes(rng, data, parts) if rng.random() < 0.4 else data


def _input(rng: Random) -> tuple[str, list[bytes]]:
    """Returns the kind of an input and its bytes, in the parts that are sent one after another."""
    match rng.randrange(3):
        case 0:
            kind, data = "http", changed_bytes(rng, rng.choice(_HEADS), _HEADS)
        case 1:
            kind, data = "query", _upgrade(_query(rng)).replace(b"\0", b"%00")
        case _:
            room = f"roomId=fuzz{rng.randrange(50)}&peerName=p{rng.randrange(10)}"
            kind, data = "frames", _upgrade(room) + _frames(rng)
    cut = rng.randrange(len(data) + 1) if rng.random() < 0.2 else len(data)
    return kind, [part for part in (data[:cut], data[cut:]) if part]


async def _send(host: str, port: int, rng: Random) -> str:
    """Sends one input and the end of the stream over a connection of its own; returns the first line that came back.

    Raises `TimeoutError` if the gateway keeps the connection open.
    """
    kind, parts = _input(rng)
    reader, writer = await asyncio.open_connection(host, port)
    head = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(_PATIENCE):
            head = await reader.readline()
            while await reader.read(65_536):
                pass
    except ConnectionError:
        return f"{kind}: reset"
    finally:
        writer.transport.abort()
    return f"{kind}: {head[:12].decode('latin-1').strip() or 'closed'}"


async def fuzz(role: Role, seed: int, first: int, count: int) -> Counter[str]:
    """Sends `count` inputs to a gateway. Raises `AssertionError` if it dies or does not answer afterwards."""
    host, port = address(role)
    outcomes = Counter[str]()
    numbers = iter(range(first, first + count))

    async def send_some() -> None:
        for number in numbers:
            outcomes[await _send(host, port, Random(f"gateway:{seed}:{number}"))] += 1

    await asyncio.gather(*(send_some() for _ in range(CONCURRENT)))
    role.check()
    async with asyncio.timeout(_PATIENCE):
        while not await asyncio.to_thread(ready, role.url):
            await asyncio.sleep(0.1)
    return outcomes


def defects(role: Role) -> list[str]:
    """Returns the parts of the process's log that tell of an exception that nothing handled, with what follows."""
    signs = ("Traceback", '"level":"error"', '"level": "error"', "never retrieved", "Exception ignored")
    lines = role.log.read_text(errors="replace").splitlines()
    return [
        "\n".join(lines[at : at + _SHOWN_LINES])
        for at, line in enumerate(lines)
        if any(sign in line for sign in signs)
    ]
