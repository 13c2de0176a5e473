"""A protoo client whose answers come by callback, in the order of everything else: no task and no future each."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from loadtest.client.protoo import ProtooClient, Refusal, _Socket

Answered: TypeAlias = Callable[[Any, Refusal | None], None]
"""Gets the answer's data, or the refusal."""
Wrong: TypeAlias = Callable[[str, str], None]


class Session(ProtooClient):
    """`resumed` is called with the seconds that a broken connection was away."""

    def __init__(
        self,
        url: str,
        room: str,
        peer: str,
        urls: Sequence[str],
        *,
        on_notification: Callable[[str, Any], None],
        wrong: Wrong,
        resumed: Callable[[float], None],
        query: dict[str, str] | None = None,
    ) -> None:
        super().__init__(url, room, peer, urls=urls, on_notification=on_notification, query=query)
        self._wrong = wrong
        self._on_resumed = resumed
        self._open: dict[int, tuple[str, Answered]] = {}
        self._lost_at = 0.0
        self._last = 0

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def waiting(self) -> list[str]:
        """The methods of what is not answered."""
        return [method for method, _ in self._open.values()]

    def post(self, protoo: str, method: str, data: dict[str, Any], then: Answered) -> None:
        """Sends a request at once. Raises `Ended` or `Overflow`; `then` is not called if the session ends first."""
        id_ = next(self._ids)
        self._open[id_] = (method, then)
        try:
            self.send({"request": True, "id": id_, "method": protoo, "data": data})
        except BaseException:
            del self._open[id_]
            raise

    def _answered(self, frame: dict[str, Any]) -> None:
        id_ = frame["id"]
        known = self._open.pop(id_, None)
        if known is None:
            self._wrong("duplicated", f"{self.room}/{self.peer}: answer to request {id_}, which is not open")
            return
        method, then = known
        if id_ < self._last:
            self._wrong("reordered", f"{self.room}/{self.peer}: {method} {id_} answered after {self._last}")
        self._last = max(self._last, id_)
        if frame.get("ok"):
            then(frame["data"], None)
        else:
            then(None, Refusal(frame["errorCode"], frame["errorReason"]))

    def _lost(self, socket: _Socket) -> None:
        if self._socket is socket:
            self._lost_at = time.monotonic()
        super()._lost(socket)

    def _greet(self, socket: _Socket) -> None:
        super()._greet(socket)
        if self._lost_at:
            self._on_resumed(time.monotonic() - self._lost_at)
            self._lost_at = 0.0
