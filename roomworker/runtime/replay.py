"""Answers gateways that miss outputs of a session: sends what is kept again, then the session's last numbers."""

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
class ReplayRequest:
    """A gateway's request for missed outputs of one session.

    `committed` has the session's last committed numbers; `is_open` is false if the session is closed.
    """

    gateway: str
    item: bus.Replay
    committed: ClosedSession
    is_open: bool


class Replayer:
    """Answers all replay requests of one worker, many in one round trip; one such trip is under way at a time."""

    def __init__(self, store: Store, outbox: Outbox, counters: Counters) -> None:
        self._store = store
        self._outbox = outbox
        self._counters = counters
        self._requests: dict[tuple[str, int, str], ReplayRequest] = {}
        """Open requests by gateway, connection and session: a repeated request replaces the one before."""
        self._any = asyncio.Event()

    def replay(self, actor: RoomActor, gateway: str, item: bus.Replay) -> None:
        """Takes a request, which is answered once the room is loaded."""
        actor.when_live(lambda executor: self._enqueue(executor, gateway, item))

    def _enqueue(self, executor: Executor, gateway: str, item: bus.Replay) -> None:
        committed = executor.position(item.session)
        if committed is None:
            self._close(gateway, item, SESSION_UNKNOWN)
        elif not executor.report_released(gateway, item):
            is_open = item.session in executor.room.sessions
            self._requests[gateway, item.connection, item.session] = ReplayRequest(gateway, item, committed, is_open)
            self._any.set()

    async def run(self) -> None:
        """Answers requests for ever."""
        while True:
            await self._any.wait()
            some = list(self._requests)[:SESSIONS_PER_TRIP]
            requests = [self._requests.pop(key) for key in some]
            if not self._requests:
                self._any.clear()
            sessions = [(one.item.room, one.item.session, one.item.after) for one in requests]
            for one, found in zip(requests, await self._store.replay(sessions), strict=True):
                self._answer(one, found)

    def _answer(self, request: ReplayRequest, found: list[tuple[SentMessage, int]]) -> None:
        """Sends what was found, then the session's numbers or its end: a gateway repeats its request until then."""
        gateway, item, committed = request.gateway, request.item, request.committed
        self._counters.replays_total += 1
        self._counters.replayed_messages_total += len(found)
        for message, out in found:
            recipient = bus.Recipient(item.connection, item.session, out)
            self._outbox.send(gateway, bus.Message(message.body, [recipient], message.close))
        kept = [out for _, out in found] or [committed.n_out + 1]
        if kept[0] > item.after + 1 or kept[-1] - kept[0] >= len(kept):
            self._close(gateway, item, GAP)
        elif not found and not request.is_open:
            self._close(gateway, item, SESSION_UNKNOWN)
        else:
            out = max((out for _, out in found), default=committed.n_out)
            self._outbox.send(gateway, bus.Applied(item.connection, item.session, committed.n_in, out))

    def _close(self, gateway: str, item: bus.Replay, why: CloseKind) -> None:
        recipient = bus.Recipient(item.connection, item.session, 0)
        self._outbox.send(gateway, bus.Message(why.reason.encode(), [recipient], why.code))
