"""One session as its gateway sees it: the numbers of both directions. Pure: no socket, no broker, no clock.

Inputs go towards the room worker by go-back-N: each is kept, encoded, until it is reported applied, and what is
kept is handed out again from its beginning whenever something may have been lost (DELIVERY I8). Outputs come
from the worker in any order, any number of times, and leave in theirs exactly once (O2).
"""

from dataclasses import dataclass
from typing import Final

from shared.errors import Unavailable
from shared.protocol.bus import (
    Applied,
    Connect,
    Disconnect,
    Input,
    Message,
    RejectedInput,
    Replay,
    SessionItem,
    decode_item,
    encode_item,
)
from shared.protocol.protoo import Frame

HELD_LIMIT: Final = 256
"""Outputs that wait for a missing one; what comes beyond is dropped and replayed."""

FIRST_PATIENCE: Final = 4
LAST_PATIENCE: Final = 16
"""Sweeps without progress after which to repeat: at first, and at most (each repetition doubles it)."""

_NOTHING: Final[dict[int, Message]] = {}


@dataclass(slots=True, frozen=True)
class Limits:
    """Of one session's kept inputs; beyond them its socket is not read."""

    items: int = 256
    size: int = 1024 * 1024


class Session:
    """`id` and `connection` name it on the bus; `closed` says that its socket is gone."""

    kind = "plain"
    revocable = True
    """Its numbers are the gateway's own: what nobody has heard of can be taken back, or not be numbered at all."""
    __slots__ = (
        "_asked",
        "_base",
        "_held",
        "_idle_sweeps",
        "_kept",
        "_next",
        "_patience",
        "_published",
        "_rewound_at",
        "_taken_back",
        "_want_replay",
        "closed",
        "connection",
        "expected",
        "forgotten",
        "id",
        "known",
        "queued",
        "room",
        "size",
    )

    def __init__(self, room: str, session: str, connection: int) -> None:
        self.room = room
        self.id = session
        self.connection = connection
        self.closed = False
        self.forgotten = False
        self.queued = False
        """Kept by the publisher: already in line to be published."""

        self._kept: list[bytes] = []
        self._base = 0
        self._next = 0
        self._published = 0
        self._rewound_at = -2
        self._taken_back = 0
        self.size = 0

        self.expected = 1
        self.known = 0
        self._held = _NOTHING
        self._want_replay = False
        self._asked = False

        self._idle_sweeps = 0
        self._patience = FIRST_PATIENCE

    # --- inputs: from the client ---------------------------------------------------------------------------

    def connect(self, peer: str, accepted: int) -> None:
        self._keep(Connect(self.room, self.id, self.connection, peer, accepted))

    def input(self, frame: Frame) -> None:
        id_ = frame.id if frame.request else None
        n = self._base + len(self._kept)
        self._keep(Input(self.room, self.id, self.connection, n, frame.method, id_, bytes(frame.data)))

    def refuse(self, id_: int | None, code: int, reason: str) -> None:
        n = self._base + len(self._kept)
        self._keep(RejectedInput(self.room, self.id, self.connection, n, id_, code, reason))

    def disconnect(self) -> None:
        """The last input. A session of which nobody has heard, or which nobody knows, needs none."""
        self._end()
        if self._published == 0 or self.forgotten:
            self._forget()
        else:
            n = self._base + len(self._kept)
            self._keep(Disconnect(self.room, self.id, self.connection, n))

    def _end(self) -> None:
        self.closed = True
        self._held = _NOTHING
        self._want_replay = self._asked = False

    def _keep(self, item: SessionItem) -> None:
        encoded = encode_item(item)
        self._kept.append(encoded)
        self.size += len(encoded)

    def _forget(self) -> None:
        self._kept.clear()
        self._next = self._base
        self.size = 0
        self._want_replay = False
        self.forgotten = True

    def take_back(self) -> list[int]:
        """The ids of requests that nobody has heard of, and nobody will: whoever asks again does nothing twice.

        An input without effect keeps their numbers. What was published stays: it may be done already.
        """
        ids = []
        start = max(self._published, self._taken_back, self._base)
        self._taken_back = self._base + len(self._kept)
        for at in range(start - self._base, len(self._kept)):
            item = decode_item(self._kept[at])
            if isinstance(item, Input) and item.id is not None:
                ids.append(item.id)
                empty = RejectedInput(
                    self.room, self.id, self.connection, item.n, None, Unavailable.code, "taken back"
                )
                self.size -= len(self._kept[at])
                self._kept[at] = encode_item(empty)
                self.size += len(self._kept[at])
        return ids

    # --- inputs: towards the worker -------------------------------------------------------------------------

    @property
    def sendable(self) -> bool:
        """Whether `take` has something."""
        return self._want_replay or self._next < self._base + len(self._kept)

    def take(self) -> bytes | None:
        """The next encoded item to publish."""
        if self._want_replay:
            self._want_replay = False
            return encode_item(Replay(self.room, self.id, self.connection, self.expected - 1))
        at = self._next - self._base
        if at >= len(self._kept):
            return None
        self._next += 1
        self._published = max(self._published, self._next)
        return self._kept[at]

    def lost(self) -> None:
        """All that was published and not yet answered, a `Replay` too, is to be handed out again."""
        self._next = self._base
        if self._asked or self.missing:
            self.ask_replay()

    def applied(self, report: Applied) -> None:
        """Frees what is applied. Afterwards look at `forgotten` (close it), `sendable` and `over`."""
        if report.n >= self._base:
            self._free(report.n)
        elif report.n < 0 and self._base > 0:
            self._forget()
            return
        if (report.again or report.n < 0) and self._rewound_at != self._base:
            # Every batch behind a gap is answered `again`; once is enough until something moves.
            self._rewound_at = self._base
            self._next = self._base
        self._asked = False
        self._heard_of(report.out)

    def _free(self, n: int) -> None:
        count = min(n + 1 - self._base, len(self._kept))
        self.size -= sum(map(len, self._kept[:count]))
        del self._kept[:count]
        self._base += count
        self._next = max(self._next, self._base)
        self._progress()

    @property
    def last_input(self) -> int:
        """Its number; -1: there is none yet."""
        return self._base + len(self._kept) - 1

    @property
    def unapplied(self) -> int:
        return len(self._kept)

    @property
    def over(self) -> bool:
        """Its socket is closed and nothing more is owed to the worker: the record can go."""
        return self.closed and not self._kept

    def beyond(self, limits: Limits) -> bool:
        return len(self._kept) >= limits.items or self.size >= limits.size

    def within_half(self, limits: Limits) -> bool:
        return 2 * len(self._kept) <= limits.items and 2 * self.size <= limits.size

    # --- outputs --------------------------------------------------------------------------------------------

    def receive(self, out: int, message: Message) -> tuple[Message, ...] | list[Message]:
        """What can be written now, in order: nothing for a duplicate, or if an earlier one is missing."""
        if self.closed:
            return ()
        if out == 0:
            return (message,)
        if out < self.expected:
            return ()
        self._asked = False
        if out > self.expected:
            self._hold(out, message)
            self._heard_of(out)
            return ()
        self.expected += 1
        if self.known >= out:
            self._progress()
        if not self._held:
            return (message,)
        ready = [message]
        while (held := self._held.pop(self.expected, None)) is not None:
            ready.append(held)
            self.expected += 1
        if not self._held:
            self._held = _NOTHING
        return ready

    def _hold(self, out: int, message: Message) -> None:
        if self._held is _NOTHING:
            self._held = {}
        if len(self._held) < HELD_LIMIT:
            self._held[out] = message

    def _heard_of(self, out: int) -> None:
        gap_was_known = self.missing
        self.known = max(self.known, out)
        if self.missing and not gap_was_known:
            self.ask_replay()

    @property
    def missing(self) -> bool:
        """An output is known to exist that has not come."""
        return self.known >= self.expected

    def ask_replay(self) -> None:
        """Outputs may have been lost: `take` asks for them, and again until something is heard."""
        if not self.closed:
            self._want_replay = True
            self._asked = True

    # --- silence --------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Something is expected of the worker: an input applied, or an output."""
        return bool(self._kept) or self._asked or (self.missing and not self.closed)

    @property
    def overdue(self) -> bool:
        """The client has waited for too long: it is better off elsewhere."""
        return False

    def sweep(self) -> bool:
        """Called at regular intervals while `waiting`; true if it was silent for too long and is repeated."""
        self._idle_sweeps += 1
        if self._idle_sweeps < self._patience:
            return False
        self._idle_sweeps = 0
        self._patience = min(2 * self._patience, LAST_PATIENCE)
        self._rewound_at = -2
        self.lost()
        return True

    def _progress(self) -> None:
        self._idle_sweeps = 0
        self._patience = FIRST_PATIENCE
