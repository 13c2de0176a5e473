"""Requests to media nodes and their results."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from roomworker.counters import Counters
from shared.errors import Unavailable
from shared.protocol import media
from shared.telemetry import log

DEADLINE: Final = 5.0
SILENCE: Final = 2.0
"""A node that has answered nothing for so long fails what it was asked, and what it would be asked but for one
request now and then, until it answers one: a dead node must not fill the partitions' prefetch windows with waiting
messages (DELIVERY B6)."""

AVOIDED_FOR: Final = 10.0
"""Seconds that a node gets no new rooms after it said nothing, or had no command queue (cut off from the broker)."""

_AWAY: Final = media.Failed(Unavailable.code, "the media node does not answer: try again")
_GONE: Final = media.Failed(Unavailable.code, "the media node is gone: try again")

logger = log.get("media")

OnResult = Callable[[media.AnyResult], None]


@dataclass(slots=True)
class _Pending:
    on_result: OnResult
    node: str
    kind: type[media.Request]
    since: float


class MediaClient:
    """`send` takes (node, number, request). Every request is answered: by the node, or with a 503."""

    def __init__(self, send: Callable[[str, int, media.AnyRequest], None], counters: Counters) -> None:
        self._send = send
        self._counters = counters
        self._last = 0
        self._pending: dict[int, _Pending] = {}
        self._heard: dict[str, float] = {}
        self._circuit_open_until: dict[str, float] = {}
        self._unreached: dict[str, float] = {}
        """When a request last found no queue of the node."""

    @property
    def waiting(self) -> int:
        return len(self._pending)

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult, now: float) -> None:
        """`now` is the monotonic clock, seconds."""
        open_until = self._circuit_open_until.get(node)
        if open_until is not None and now >= open_until:
            self._circuit_open_until[node] = now + SILENCE  # this one is to find out
        elif open_until is not None:
            self._counters.count_media_request(type(request), _AWAY, 0.0)
            asyncio.get_running_loop().call_soon(on_result, _AWAY)
            return
        self._last += 1
        self._pending[self._last] = _Pending(on_result, node, type(request), now)
        self._send(node, self._last, request)

    def receive(self, body: bytes, now: float) -> None:
        """A batch of results."""
        try:
            results = media.decode_results(body)
        except msgspec.MsgspecError as failure:
            logger.error("results that cannot be read", error=str(failure))
            return
        self._heard[results.node] = now
        self._circuit_open_until.pop(results.node, None)
        self._unreached.pop(results.node, None)
        for answer in results.answers:
            self._answer(answer.n, answer.result, now)

    def lost(self, numbers: list[int], now: float) -> None:
        """These found no node."""
        for n in numbers:
            if n in self._pending:
                self._unreached[self._pending[n].node] = now
            self._answer(n, _GONE, now)

    def avoided(self, now: float) -> set[str]:
        """Nodes that answered nothing lately, or could not be asked: alive, perhaps, but none for a new room."""
        return {
            node
            for since in (self._circuit_open_until, self._unreached)
            for node, at in since.items()
            if now - at < AVOIDED_FOR
        }

    def expire(self, now: float) -> None:
        """Fails what waits too long; to be called every second or so."""
        silent = {
            pending.node
            for pending in self._pending.values()
            if now - max(pending.since, self._heard.get(pending.node, 0.0)) >= SILENCE
        }
        for node in silent:
            logger.warning("media node does not answer", node=node)
            self._circuit_open_until[node] = now + SILENCE / 2
        late = [n for n, asked in self._pending.items() if asked.node in silent or now - asked.since >= DEADLINE]
        for n in late:
            self._answer(n, _AWAY, now)
        self._circuit_open_until = {
            node: until for node, until in self._circuit_open_until.items() if now - until < 60 * SILENCE
        }
        self._unreached = {node: at for node, at in self._unreached.items() if now - at < AVOIDED_FOR}
        self._heard = {node: at for node, at in self._heard.items() if now - at < 60 * SILENCE}

    def _answer(self, n: int, result: media.AnyResult, now: float) -> None:
        pending = self._pending.pop(n, None)
        if pending is not None:
            self._counters.count_media_request(pending.kind, result, now - pending.since)
            pending.on_result(result)
