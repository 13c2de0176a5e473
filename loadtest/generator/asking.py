"""A session's owner: asks, counts what is answered and how long it took."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from loadtest.client.protoo import Ended, Refusal
from loadtest.client.session import Session
from loadtest.model.recorder import Recorder
from shared.protocol.client import NOTIFICATION, REQUEST

Then: TypeAlias = Callable[[Any], None]
Excused: TypeAlias = Callable[[], bool]


class Asking:
    """`session` is None while there is none."""

    def __init__(self, who: str, recorder: Recorder) -> None:
        self.session: Session | None = None
        self._who = who
        self._recorder = recorder
        self._calls: set[asyncio.Future[Any]] = set()

    @property
    def connected(self) -> bool:
        return self.session is not None and self.session.connected

    @property
    def in_flight(self) -> int:
        return self.session.in_flight if self.session is not None else 0

    def give_up(self) -> None:
        """What is not answered by now never will be."""
        if self.session is not None:
            for method in self.session.waiting():
                self._wrong("unanswered", f"{method} has no answer")

    def _request(self, method: str, due: float, then: Then, excused: Excused | None = None, **fields: Any) -> None:
        self._post(REQUEST, method, due, {"method": method, **fields}, then, excused)

    def _order(self, method: str, due: float, then: Then, excused: Excused | None = None, **fields: Any) -> None:
        """A notification of the specification, sent as a request, so that it is answered."""
        self._post(NOTIFICATION, method, due, {"method": method, "notification": True, **fields}, then, excused)

    async def _call(
        self, protoo: str, method: str, then: Then | None = None, due: float | None = None, **fields: Any
    ) -> Any:
        """Returns the answer. Raises `Refusal` (counted already) or `Ended`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.add(answer)

        def answered(data: Any) -> None:
            if then is not None:
                then(data)
            if not answer.done():
                answer.set_result(data)

        def refused(refusal: Refusal) -> None:
            if not answer.done():
                answer.set_exception(refusal)

        data = {"method": method, **fields}
        if protoo == NOTIFICATION:
            data["notification"] = True
        try:
            self._post(protoo, method, due or time.monotonic(), data, answered, refused=refused)
            return await answer
        finally:
            self._calls.discard(answer)

    def _post(
        self,
        protoo: str,
        method: str,
        due: float,
        data: dict[str, Any],
        then: Then,
        excused: Excused | None = None,
        refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        """`due` is when it was meant to be sent. `excused`: whether a 404 may be, because others were faster."""

        def answered(answer: Any, refusal: Refusal | None) -> None:
            current = self._recorder.current
            if refusal is None:
                current.answered(method, time.monotonic() - due)
                then(answer)
                return
            if excused is not None and excused() and refusal.code == 404:
                current.counts["excused"] += 1
            else:
                current.errors[method] += 1
                self._wrong("errors", f"{method}: {refusal}")
            if refused is not None:
                refused(refusal)

        if self.session is None:
            raise Ended(1006, "no session")
        self.session.post(protoo, method, data, answered)

    async def _finished(self, work: "asyncio.Future[None]") -> None:
        """Waits for something that also ends when the session does; raises `Ended` then."""
        self._calls.add(work)
        try:
            await work
        finally:
            self._calls.discard(work)

    def _fail_calls(self, why: Ended) -> None:
        for waiting in self._calls:
            if not waiting.done():
                waiting.set_exception(why)

    def _wrong(self, kind: str, text: str) -> None:
        self._recorder.wrong(kind, f"{self._who}: {text}")


def nothing(_: Any) -> None:
    """For answers that mean no more than that there is one."""
