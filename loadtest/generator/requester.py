"""Sends the requests of a virtual peer, counts their answers, and measures how long they took."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from loadtest.client.protoo import Ended, ProtooClient, Refusal
from loadtest.model.recorder import Recorder
from shared.protocol.client import NOTIFICATION, REQUEST

OnAnswer: TypeAlias = Callable[[Any], None]
IsExpected: TypeAlias = Callable[[Refusal], bool]
"""Decides whether an error answer is legitimate now."""

NOT_FOUND: Final = 404
"""The error of a request about something that another peer has closed meanwhile."""


class Requester:
    """Sends requests over the present session; `session` is None while there is none."""

    def __init__(self, who: str, recorder: Recorder) -> None:
        self.session: ProtooClient | None = None
        self._epoch = 0
        """A number that grows when the peer leaves its room: later answers to earlier requests change nothing."""
        self._who = who
        self._recorder = recorder
        self._calls: set[asyncio.Future[Any]] = set()

    @property
    def connected(self) -> bool:
        return self.session is not None and self.session.connected

    @property
    def in_flight(self) -> int:
        return self.session.in_flight if self.session is not None else 0

    def report_unanswered(self) -> None:
        """Counts every request that has no answer yet as unanswered."""
        if self.session is not None:
            for method in self.session.unanswered():
                self._fail("unanswered", f"{method} has no answer")

    def _request(
        self, method: str, due: float, on_answer: OnAnswer, is_expected: IsExpected | None = None, **fields: Any
    ) -> None:
        self._post(REQUEST, method, due, {"method": method, **fields}, on_answer, is_expected)

    def _command(
        self, method: str, due: float, on_answer: OnAnswer, is_expected: IsExpected | None = None, **fields: Any
    ) -> None:
        """Sends a notification of the specification as a request, to get an answer."""
        self._post(
            NOTIFICATION, method, due, {"method": method, "notification": True, **fields}, on_answer, is_expected
        )

    async def _call(
        self,
        protoo: str,
        method: str,
        on_answer: OnAnswer | None = None,
        due: float | None = None,
        is_expected: IsExpected | None = None,
        **fields: Any,
    ) -> Any:
        """Sends a request and returns the answer. Raises `Refusal`, which is counted already, or `Ended`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answered(data: Any) -> None:
            if on_answer is not None:
                on_answer(data)
            if not answer.done():
                answer.set_result(data)

        def failed(failure: Refusal | Ended) -> None:
            if not answer.done():
                answer.set_exception(failure)

        data = {"method": method, **fields}
        if protoo == NOTIFICATION:
            data["notification"] = True
        self._post(protoo, method, due or time.monotonic(), data, answered, is_expected, failed)
        return await answer

    def _post(
        self,
        protoo: str,
        method: str,
        due: float,
        data: dict[str, Any],
        on_answer: OnAnswer,
        is_expected: IsExpected | None = None,
        failed: Callable[[Refusal | Ended], None] | None = None,
    ) -> None:
        """Sends a request; `due` is when it was meant to be sent.

        `on_answer` is called with the answer, unless the peer has left the room or ended the session meanwhile.
        Raises `Ended` or `Overflow`.
        """
        session, epoch = self.session, self._epoch
        if session is None:
            raise Ended(1006, "no session")

        def answered(answer: Any, failure: Refusal | Ended | None) -> None:
            current = self._recorder.current
            if isinstance(failure, Ended):
                pass  # the end of the session is counted once
            elif epoch != self._epoch or session is not self.session:
                current.counts["answers after leaving"] += 1
                failure = failure or Ended(1000, "left before the answer came")
            elif failure is None:
                current.answered(method, time.monotonic() - due)
                on_answer(answer)
            elif is_expected is not None and is_expected(failure):
                current.counts["excused"] += 1
            else:
                current.errors[method] += 1
                self._fail("errors", f"{method}: {failure}")
            if failure is not None and failed is not None:
                failed(failure)

        session.post(data, answered, protoo, method)

    async def _finished(self, work: "asyncio.Future[None]") -> None:
        """Waits for a result. Raises `Ended` if the session ends first."""
        self._calls.add(work)
        try:
            await work
        finally:
            self._calls.discard(work)

    def _fail_calls(self, why: Ended) -> None:
        for waiting in self._calls:
            if not waiting.done():
                waiting.set_exception(why)

    def _fail(self, kind: str, text: str) -> None:
        self._recorder.fail(kind, f"{self._who}: {text}")


def nothing(_: Any) -> None:
    """Ignores an answer without content."""
