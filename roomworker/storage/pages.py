"""Reads pages of streams: makes the command for Redis, and entries of its answer."""

import zlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Final, cast

import msgspec
from redis.exceptions import ResponseError

from roomworker.storage.port import Page, PageWanted
from roomworker.storage.stream_entry import Entry, decode_entry
from shared.cluster.redis_keys import stream_key
from shared.telemetry import log

_PAGE_SCRIPT: Final = "#!lua flags=no-writes\n" + files("roomworker.storage").joinpath("page.lua").read_text()

logger = log.get("store")


def page_command(wanted: PageWanted, size: int) -> tuple[Any, ...]:
    """Returns the command that reads a page."""
    near, far, command = ("+", "-", "XREVRANGE") if wanted.backwards else ("-", "+", "XRANGE")
    first = (wanted.entry if wanted.inclusive else f"({wanted.entry}") if wanted.entry else near
    return ("EVAL", _PAGE_SCRIPT, 1, stream_key(wanted.room), command, first, far, size)


def decode_page(room: str, reply: Any) -> Page:
    """Returns the entries that can be read: an unreadable one must not end every worker that tries."""
    if isinstance(reply, ResponseError):
        logger.error("room.stream_unreadable", room=room, error=str(reply))
        return Page([], "")
    entries: list[tuple[str, Entry]] = []
    for id_, fields in reply:
        try:
            entries.append((id_.decode(), decode_entry(dict(pairs(fields))[b"m"])))
        except (msgspec.MsgspecError, zlib.error, ValueError, KeyError) as broken:
            logger.error("room.entry_unreadable", room=room, entry=id_.decode(), error=repr(broken))
    return Page(entries, reply[-1][0].decode() if reply else "")


def pairs(reply: Any) -> Iterable[tuple[bytes, bytes]]:
    """Yields the names and values of a hash or entry, which Redis answers as one list."""
    if isinstance(reply, Mapping):
        return cast("Iterable[tuple[bytes, bytes]]", reply.items())
    return zip(reply[::2], reply[1::2], strict=True)
