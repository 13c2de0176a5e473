"""Sends requests to media nodes and hands their results to the rooms that asked."""

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
"""Seconds that a request waits for its result."""
SILENT_AFTER: Final = 2.0
"""Seconds without any result after which all requests to a node fail. New ones then fail at once, except for one now
and then that probes it, until the node answers: a dead node must not fill the partitions' prefetch windows with
waiting messages (DELIVERY B6)."""
AVOIDED_FOR: Final = 10.0
"""Seconds that a node gets no new rooms after it was silent, or had no command queue (cut off from the broker)."""
REMEMBERED_FOR: Final = 60 * SILENT_AFTER
"""Seconds after which a node's last answer or silence is forgotten."""

_SILENT: Final = media.Failed(Unavailable.code, "the media node does not answer: try again")
_UNROUTABLE: Final = media.Failed(Unavailable.code, "the media node is gone: try again")

logger = log.get("media")

OnResult = Callable[[media.AnyResult], None]


@dataclass(slots=True)
class _Pending:
    on_result: OnResult
    node: str
    kind: type[media.Request]
    since: float


class MediaClient:
    """Requests that wait for their results. Each is answered once: by its node, or with a 503.

    `send` takes (node, number, request). `now` is the monotonic clock's, seconds.
    """

    def __init__(self, send: Callable[[str, int, media.AnyRequest], None], counters: Counters) -> None:
        self._send = send
        self._counters = counters
        self._last = 0
        self._pending: dict[int, _Pending] = {}
        self._answered_at: dict[str, float] = {}
        self._circuit_open_until: dict[str, float] = {}
        """Silent nodes, and the time at which the next request probes each."""
        self._unroutable_at: dict[str, float] = {}
        """The time at which a request last found no queue of its node."""

    @property
    def waiting(self) -> int:
        """Requests that are not answered yet."""
        return len(self._pending)

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult, now: float) -> None:
        """Sends a request; `on_result` is called exactly once, never inside this call."""
        open_until = self._circuit_open_until.get(node)
        if open_until is not None and now >= open_until:
            self._circuit_open_until[node] = now + SILENT_AFTER  # this request probes the node
        elif open_until is not None:
            self._counters.count_media_request(type(request), _SILENT, 0.0)
            asyncio.get_running_loop().call_soon(on_result, _SILENT)
            return
        self._last += 1
        self._pending[self._last] = _Pending(on_result, node, type(request), now)
        self._send(node, self._last, request)

    def receive(self, body: bytes, now: float) -> None:
        """Hands out a batch of results."""
        try:
            results = media.decode_results(body)
        except msgspec.MsgspecError as failure:
            logger.error("results.unreadable", error=str(failure))
            return
        self._answered_at[results.node] = now
        self._circuit_open_until.pop(results.node, None)
        self._unroutable_at.pop(results.node, None)
        for answer in results.answers:
            self._answer(answer.n, answer.result, now)

    def unroutable(self, numbers: list[int], now: float) -> None:
        """Fails requests that found no queue of their node."""
        for n in numbers:
            if n in self._pending:
                self._unroutable_at[self._pending[n].node] = now
            self._answer(n, _UNROUTABLE, now)

    def avoided(self, now: float) -> set[str]:
        """Returns nodes that did not answer lately or had no queue: they may be alive, but should get no new room."""
        failures = (*self._circuit_open_until.items(), *self._unroutable_at.items())
        return {node for node, at in failures if now - at < AVOIDED_FOR}

    def expire(self, now: float) -> None:
        """Fails requests that have waited too long; to be called every second or so."""
        silent = {
            pending.node
            for pending in self._pending.values()
            if now - max(pending.since, self._answered_at.get(pending.node, 0.0)) >= SILENT_AFTER
        }
        for node in silent:
            logger.warning("node.silent", node=node)
            self._circuit_open_until[node] = now + SILENT_AFTER / 2
        late = [n for n, asked in self._pending.items() if asked.node in silent or now - asked.since >= DEADLINE]
        for n in late:
            self._answer(n, _SILENT, now)
        self._circuit_open_until = _newer_than(self._circuit_open_until, now, REMEMBERED_FOR)
        self._unroutable_at = _newer_than(self._unroutable_at, now, AVOIDED_FOR)
        self._answered_at = _newer_than(self._answered_at, now, REMEMBERED_FOR)

    def _answer(self, n: int, result: media.AnyResult, now: float) -> None:
        pending = self._pending.pop(n, None)
        if pending is not None:
            self._counters.count_media_request(pending.kind, result, now - pending.since)
            pending.on_result(result)


def _newer_than(times: dict[str, float], now: float, age: float) -> dict[str, float]:
    return {node: at for node, at in times.items() if now - at < age}
