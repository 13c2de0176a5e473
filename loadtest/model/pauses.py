"""Checks that the receivers of a producer are notified of every pause and resume of it, alternating. Pure.

A producer is paused and resumed in turn, so its state is the parity of the number of turns. A receiver is notified
from when its consumer is enabled. The number of turns before is known except for those that were being carried out
then, and is known exactly when no request is open.
"""

from dataclasses import dataclass

from loadtest.model.failures import Fail


@dataclass(eq=False)
class PauseCounts:
    """The number of pauses and resumes of a producer: those its peer requested, and those that were answered."""

    asked: int = 0
    answered: int = 0

    @property
    def range(self) -> tuple[int, int]:
        """The least and the greatest number of turns that the server has made."""
        return self.answered, self.asked


@dataclass(eq=False)
class ConsumerPauses:
    """Checks the notifications of an enabled consumer. From `least` to `most` turns came before it was enabled."""

    about: str
    turns: PauseCounts
    least: int
    most: int
    paused: bool
    observed: int = 0

    def observe(self, paused: bool, fail: Fail) -> None:
        """Checks a `consumerPaused` or `consumerResumed`."""
        what = "consumerPaused" if paused else "consumerResumed"
        if paused == self.paused:
            fail("mismatch", f"{self.about}: {what} twice in a row: one is missing or came twice")
        elif not self._fits(self.observed + 1, 0, self.turns.asked):
            fail("duplicated", f"{self.about}: {what}, more often than was requested")
        self.paused = paused
        self.observed += 1

    def stop(self, least: int, most: int, fail: Fail) -> None:
        """Checks the number of notifications at the end, when the producer has made from `least` to `most` turns."""
        if not self._fits(self.observed, least, most):
            had = f"{least} to {most} by now, {self.least} to {self.most} when it was enabled"
            fail("lost", f"{self.about}: told of {self.observed} pauses and resumes; there were {had}")

    def _fits(self, observed: int, least: int, most: int) -> bool:
        """Returns whether any number of turns before the first notification explains all notifications."""
        begun_paused = self.paused ^ bool(self.observed % 2)
        return any(
            before % 2 == begun_paused and least <= before + observed <= most
            for before in range(self.least, self.most + 1)
        )


def check_consumer(about: str, turns: PauseCounts, asked_at: int, paused: bool, fail: Fail) -> ConsumerPauses:
    """Checks whether an enabled consumer may be paused or not. Returns what checks its notifications from now on.

    `asked_at` turns of the producer were answered when enabling was requested.
    """
    pauses = ConsumerPauses(about, turns, asked_at, turns.asked, paused)
    if not pauses._fits(0, 0, turns.asked):
        fail("mismatch", f"{about}: enabled with paused {paused}, which it was not at that time")
    return pauses
