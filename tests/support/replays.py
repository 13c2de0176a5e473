"""Reads from a store what it keeps for sessions."""

from collections.abc import Sequence

from roomworker.storage.port import PageWanted, Store
from roomworker.storage.stream_entry import SentMessage

PAGE_BYTES = 64 * 1024


async def replay_of(store: Store, sessions: Sequence[tuple[str, str, int]]) -> list[list[tuple[SentMessage, int]]]:
    """Returns, for each (room, session, output number), its later messages that are kept, with their numbers."""
    return [await _later(store, *session) for session in sessions]


async def _later(store: Store, room: str, session: str, after: int) -> list[tuple[SentMessage, int]]:
    kept: list[tuple[SentMessage, int]] = []
    wanted = PageWanted(room)
    while True:
        (page,) = await store.pages([wanted], PAGE_BYTES)
        for _, entry in page.entries:
            for message in entry.messages:
                kept += [(message, out) for to, out in message.to if to == session and out > after]
        if not page.last:
            return kept
        wanted = PageWanted(room, page.last)
