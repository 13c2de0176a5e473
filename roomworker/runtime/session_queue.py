"""Jobs, which are items to be handled in a room, and the queue that each session's jobs are handled in."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from roomworker.core.media_steps import Steps
from roomworker.core.model import Session
from shared.protocol import bus, client

Identity: TypeAlias = tuple[str, int]
RoomItem: TypeAlias = bus.SessionItem | bus.Resume | bus.ConnectionLost | bus.Call | bus.MediaEvent


@dataclass(slots=True, eq=False)
class Job:
    """An item on its way through the room: kept until its effect is committed, so that it can be done again.

    `origin` is the gateway or media node that sent the item, `done` is called once when the job is done.
    """

    item: RoomItem
    origin: str
    done: Callable[[], None]

    @property
    def identity(self) -> Identity:
        """The identity of the item, the same when it comes again, and of no other item."""
        match self.item:
            case bus.MediaEvent(node=node, n=n):
                return node, n
            case bus.Call(key=key):
                return key, 0
            case (
                bus.Resume(session=session, connection=connection)
                | bus.ConnectionLost(session=session, connection=connection)
            ):
                return f"{session}/{type(self.item).__name__}", connection
            case item:
                return item.session, input_number(item)


class Defect(Exception):
    """Raised when a handler fails with anything but `PlenaryError`: the room in memory can no longer be trusted."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job


class SessionQueue:
    """The jobs of one session. `received` is the highest input number taken in, `job` the job being handled."""

    __slots__ = ("began", "job", "kind", "received", "session", "steps", "waiting")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.received = session.n_in
        self.waiting: deque[Job] = deque()
        self.job: Job | None = None
        self.began = 0.0
        """The time at which `job` was begun, by `time.perf_counter`."""
        self.kind: type[client.FromClient | client.Message] | None = None
        """The kind of message that `job` is; None if it is of no known kind."""
        self.steps: Steps[client.AnyAnswer] | None = None

    def abandon(self) -> list[Job]:
        """Gives up the job under way and those that wait; returns all of them."""
        steps, self.steps = self.steps, None
        if steps is not None:
            steps.close()
        jobs = [*([self.job] if self.job else []), *self.waiting]
        self.job = None
        self.waiting.clear()
        return jobs


def input_number(item: bus.SessionItem) -> int:
    """Returns the item's number in its session."""
    return 0 if isinstance(item, bus.Connect) else item.n
