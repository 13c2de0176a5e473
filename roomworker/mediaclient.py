"""Requests to media nodes and their results."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from shared import log
from shared.errors import Unavailable
from shared.protocol import media

DEADLINE: Final = 5.0

logger = log.get("media")

OnResult = Callable[[media.AnyResult], None]


@dataclass(slots=True)
class _Pending:
    on_result: OnResult
    node: str
    until: float


class MediaClient:
    """`send` takes (node, number, request). Every request is answered: by the node, or with a 503."""

    def __init__(self, send: Callable[[str, int, media.AnyRequest], None]) -> None:
        self._send = send
        self._last = 0
        self._pending: dict[int, _Pending] = {}

    @property
    def waiting(self) -> int:
        return len(self._pending)

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult, now: float) -> None:
        """`now` is the monotonic clock, seconds."""
        self._last += 1
        self._pending[self._last] = _Pending(on_result, node, now + DEADLINE)
        self._send(node, self._last, request)

    def receive(self, body: bytes) -> None:
        """A batch of results."""
        try:
            results = media.decode_results(body)
        except msgspec.MsgspecError as failure:
            logger.error("results that cannot be read", error=str(failure))
            return
        for answer in results.answers:
            self._answer(answer.n, answer.result)

    def lost(self, numbers: list[int]) -> None:
        """These found no node."""
        for n in numbers:
            self._answer(n, media.Failed(Unavailable.code, "the media node is gone: try again"))

    def expire(self, now: float) -> None:
        late = [n for n, pending in self._pending.items() if pending.until <= now]
        for n in late:
            logger.warning("media node does not answer", node=self._pending[n].node)
            self._answer(n, media.Failed(Unavailable.code, "the media node does not answer: try again"))

    def _answer(self, n: int, result: media.AnyResult) -> None:
        pending = self._pending.pop(n, None)
        if pending is not None:
            pending.on_result(result)
