"""What one commit sends, as a room's stream keeps it: msgpack, compressed where a message is long.

Long messages are those with RTP parameters or capabilities, and they are nearly the same for everybody.
`zlib_dictionary.txt` has what they have in common. It must stay as it is while streams exist that were written with
it (ten minutes): a stream written by the old version of a room worker is read by the new one. Another version needs
another file, and its entries can be read by no older version.
"""

import zlib
from importlib.resources import files
from typing import Final

import msgspec

from roomworker.core.journal import Changes
from shared.protocol import media

LONG: Final = 400
"""Bytes of a message from which on compressing is worth its 20 µs."""

_DICTIONARY: Final = files("roomworker.storage").joinpath("zlib_dictionary.txt").read_bytes()
_COMPRESSED: Final = b"\x78"
"""The first byte of what zlib makes; msgpack begins an array with 0x90 and more."""


class SentMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message as the stream keeps it; `to` is (session, output number)."""

    body: bytes
    to: list[tuple[str, int]]
    close: int = 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One commit's outgoing part."""

    messages: list[SentMessage]
    orders: list[tuple[str, media.AnyOrder]]


def entry_of(changes: Changes) -> Entry | None:
    """What a room's changes send; None if that is nothing."""
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
    encoded = _encode(entry)
    if not any(len(message.body) >= LONG for message in entry.messages):
        return encoded
    packer = zlib.compressobj(zlib.Z_BEST_SPEED, zdict=_DICTIONARY)
    return packer.compress(encoded) + packer.flush()


def decode_entry(encoded: bytes) -> Entry:
    """Raises `zlib.error` or `msgspec.MsgspecError` for what is not an entry."""
    if encoded.startswith(_COMPRESSED):
        encoded = zlib.decompressobj(zdict=_DICTIONARY).decompress(encoded)
    return _decode(encoded)
