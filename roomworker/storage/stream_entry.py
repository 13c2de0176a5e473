"""Encodes what one commit sends for the room's stream: msgpack, compressed where a message is long.

Long messages are those with RTP parameters or capabilities, which are nearly the same for all peers.
`zlib_dictionary.txt` has what they have in common. The file must not change while streams exist that were written
with it (ten minutes): a new version of a room worker reads streams that the old one wrote. A changed dictionary needs
a new file, and older versions cannot read its entries.
"""

import zlib
from importlib.resources import files
from typing import Final

import msgspec

from roomworker.core.journal import Changes
from shared.protocol import media

LONG: Final = 400
"""Bytes of a message from which on compression is worth its 20 µs."""

_DICTIONARY: Final = files("roomworker.storage").joinpath("zlib_dictionary.txt").read_bytes()
_COMPRESSED: Final = b"\x78"
"""The first byte of zlib's output; a msgpack array begins with 0x90 or more."""


class SentMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message as the stream keeps it; `to` is (session, output number)."""

    body: bytes
    to: list[tuple[str, int]]
    close: int = 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The messages and orders of one commit."""

    messages: list[SentMessage]
    orders: list[tuple[str, media.AnyOrder]]


def entry_of(changes: Changes) -> Entry | None:
    """Returns the stream entry of a room's changes; None if they send nothing."""
    if not changes.messages and not changes.orders:
        return None
    messages = [
        SentMessage(message.body, [(session.id, out) for session, out in message.to], message.close)
        for message in changes.messages
    ]
    return Entry(messages, changes.orders)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def encode_entry(entry: Entry) -> bytes:
    """Returns the entry as the stream keeps it."""
    encoded = _encode(entry)
    if not any(len(message.body) >= LONG for message in entry.messages):
        return encoded
    packer = zlib.compressobj(zlib.Z_BEST_SPEED, zdict=_DICTIONARY)
    return packer.compress(encoded) + packer.flush()


def decode_entry(encoded: bytes) -> Entry:
    """Returns the entry. Raises `zlib.error` or `msgspec.MsgspecError` for anything else."""
    if encoded.startswith(_COMPRESSED):
        encoded = zlib.decompressobj(zdict=_DICTIONARY).decompress(encoded)
    return _decode(encoded)
