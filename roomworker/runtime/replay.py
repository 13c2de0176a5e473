"""Answers gateways that miss outputs of a session: what is kept is sent again, then where the session stands."""

import asyncio
from dataclasses import dataclass
from typing import Final

from roomworker.core.model import ClosedSession
from roomworker.counters import Counters
from roomworker.messaging.outbox import Outbox
from roomworker.runtime.executor import Executor
from roomworker.runtime.room_actor import RoomActor
from roomworker.storage.port import Store
from roomworker.storage.stream_entry import SentMessage
from shared.errors import GAP, SESSION_UNKNOWN, CloseKind
from shared.protocol import bus

SESSIONS_PER_TRIP: Final = 64
"""A round trip reads the whole stream of each room that it is about."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A gateway's question. `committed`: the session's last committed numbers; `known`: whether it still lives."""

    gateway: str
    item: bus.Replay
    committed: ClosedSession
    known: bool


class Replayer:
    """All questions of one worker: many are answered in one round trip, and one such trip is under way at a time."""

    def __init__(self, store: Store, outbox: Outbox, counters: Counters) -> None:
        self._store = store
        self._outbox = outbox
        self._counters = counters
        self._wanted: dict[tuple[str, int, str], Wanted] = {}
        """By gateway, connection and session: a question that is asked again replaces the one before."""
        self._any = asyncio.Event()

    def replay(self, actor: RoomActor, gateway: str, item: bus.Replay) -> None:
        """Answers once the room is loaded."""
        actor.when_live(lambda executor: self._look(executor, gateway, item))

    def _look(self, executor: Executor, gateway: str, item: bus.Replay) -> None:
        committed = executor.position(item.session)
        if committed is None:
            self._close(gateway, item, SESSION_UNKNOWN)
        elif not executor.report_released(gateway, item):
            known = item.session in executor.room.sessions
            self._wanted[gateway, item.connection, item.session] = Wanted(gateway, item, committed, known)
            self._any.set()

    async def run(self) -> None:
        """Answers for ever."""
        while True:
            await self._any.wait()
            some = list(self._wanted)[:SESSIONS_PER_TRIP]
            wanted = [self._wanted.pop(key) for key in some]
            if not self._wanted:
                self._any.clear()
            questions = [(one.item.room, one.item.session, one.item.after) for one in wanted]
            for one, found in zip(wanted, await self._store.replay(questions), strict=True):
                self._answer(one, found)

    def _answer(self, wanted: Wanted, found: list[tuple[SentMessage, int]]) -> None:
        """The gateway asks again until it has heard where the session stands, or that it is over."""
        gateway, item, committed = wanted.gateway, wanted.item, wanted.committed
        self._counters.replays_total += 1
        self._counters.replayed_messages_total += len(found)
        for message, out in found:
            recipient = bus.Recipient(item.connection, item.session, out)
            self._outbox.tell(gateway, bus.Message(message.body, [recipient], message.close))
        kept = [out for _, out in found] or [committed.n_out + 1]
        if kept[0] > item.after + 1 or kept[-1] - kept[0] >= len(kept):
            self._close(gateway, item, GAP)
        elif not found and not wanted.known:
            self._close(gateway, item, SESSION_UNKNOWN)
        else:
            out = max((out for _, out in found), default=committed.n_out)
            self._outbox.tell(gateway, bus.Applied(item.connection, item.session, committed.n_in, out))

    def _close(self, gateway: str, item: bus.Replay, why: CloseKind) -> None:
        recipient = bus.Recipient(item.connection, item.session, 0)
        self._outbox.tell(gateway, bus.Message(why.reason.encode(), [recipient], why.code))
