"""Whether those who receive a producer are told of every pause and resume of it, alternating. Pure.

A producer is paused and resumed in turn, so its state is the parity of how often that was done. A receiver is told
from the moment its consumer is enabled. What it is told by then is known up to what was under way in that moment,
and exactly again when all is quiet.
"""

from collections.abc import Callable
from dataclasses import dataclass

Fail = Callable[[str, str], None]


@dataclass(eq=False)
class Turns:
    """How often a producer was paused or resumed: asked for by its peer, and answered."""

    asked: int = 0
    answered: int = 0

    @property
    def range(self) -> tuple[int, int]:
        """What the server has done, at least and at most."""
        return self.answered, self.asked


@dataclass(eq=False)
class Listener:
    """One enabled consumer. `least` and `most` are the range of turns that came before its enabling."""

    about: str
    turns: Turns
    least: int
    most: int
    paused: bool
    told: int = 0

    def hear(self, paused: bool, fail: Fail) -> None:
        """`consumerPaused` or `consumerResumed`."""
        what = "consumerPaused" if paused else "consumerResumed"
        if paused == self.paused:
            fail("mismatch", f"{self.about}: {what}, and it was so before: one is missing or came twice")
        elif not self._fits(self.told + 1, 0, self.turns.asked):
            fail("duplicated", f"{self.about}: {what}, more often than was asked for")
        self.paused = paused
        self.told += 1

    def leave(self, least: int, most: int, fail: Fail) -> None:
        """It listens no longer. By then the producer has had from `least` to `most` turns."""
        if not self._fits(self.told, least, most):
            had = f"{least} to {most} by now, {self.least} to {self.most} when it was enabled"
            fail("lost", f"{self.about}: told of {self.told} pauses and resumes; there were {had}")

    def _fits(self, told: int, least: int, most: int) -> bool:
        """Whether some number of turns before the first it was told explains what came."""
        begun_paused = self.paused ^ bool(self.told % 2)
        return any(
            before % 2 == begun_paused and least <= before + told <= most
            for before in range(self.least, self.most + 1)
        )


def listen(about: str, turns: Turns, asked_at: int, paused: bool, fail: Fail) -> Listener:
    """A consumer was enabled. `asked_at` is how many turns were answered when that was asked for."""
    listener = Listener(about, turns, asked_at, turns.asked, paused)
    if not listener._fits(0, 0, turns.asked):
        fail("mismatch", f"{about}: enabled with paused {paused}, which it was not at that time")
    return listener
