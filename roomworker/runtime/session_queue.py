"""What waits to be handled in a room: jobs, and the queue that each session's jobs are handled in."""

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

    `origin` is the gateway or media node it came from, `done` tells the delivery it came in.
    """

    item: RoomItem
    origin: str
    done: Callable[[], None]

    @property
    def identity(self) -> Identity:
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
                return item.session, number(item)


class Defect(Exception):
    """A handler raised what it must not: the room in memory can no longer be trusted."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job


class SessionQueue:
    """One session's jobs. `received` is the highest number taken in, `job` the one being handled."""

    __slots__ = ("began", "job", "kind", "received", "session", "steps", "waiting")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.received = session.n_in
        self.waiting: deque[Job] = deque()
        self.job: Job | None = None
        self.began = 0.0
        """When `job` was begun, by `time.perf_counter`."""
        self.kind: type[client.FromClient | client.Message] | None = None
        """What kind of message `job` is; None: of none that there is."""
        self.steps: Steps[client.AnyAnswer] | None = None

    def abandon(self) -> list[Job]:
        """Gives up what is under way or waits: the jobs that are thereby done."""
        steps, self.steps = self.steps, None
        if steps is not None:
            steps.close()
        jobs = [*([self.job] if self.job else []), *self.waiting]
        self.job = None
        self.waiting.clear()
        return jobs


def number(item: bus.SessionItem) -> int:
    """Its number in its session."""
    return 0 if isinstance(item, bus.Connect) else item.n
