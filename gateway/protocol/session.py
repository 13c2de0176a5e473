"""Keeps a gateway's side of one session: the numbers, the unapplied inputs and the early outputs.

Inputs go to the room worker by go-back-N: each is kept, encoded, until it is reported as applied, and what is kept is
published again from its beginning whenever something may have been lost (DELIVERY I8). Outputs come from the
room worker in any order and any number of times, and are written in order and exactly once (DELIVERY O2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.protocol.events import CLOSE_SESSION_UNKNOWN, FORGOTTEN, NOTHING, PUBLISH, REPUBLISH, Events
from gateway.protocol.repeat_timer import RepeatTimer
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

EARLY_OUTPUTS: Final = 256
"""Outputs kept while an earlier one is missing; those beyond are dropped, and replayed later."""

_NO_OUTPUTS: Final[dict[int, Message]] = {}


@dataclass(slots=True, frozen=True)
class InputLimits:
    """The bounds of one session's unapplied inputs, in items and bytes; beyond them its socket is not read."""

    items: int = 256
    size: int = 1024 * 1024


@dataclass(slots=True)
class UnappliedBytes:
    """The size in bytes of the unapplied inputs of all sessions that share this object."""

    total: int = 0


class Session:
    """A session over one connection. `id` and `connection` name it on the bus; `closed`: its socket is closed."""

    kind = "plain"
    cancellable = True
    """True where the gateway numbers the inputs, so that it can cancel an unpublished one."""
    __slots__ = (
        "_base",
        "_early",
        "_forgotten",
        "_inputs",
        "_next",
        "_published",
        "_repeat_timer",
        "_replay_due",
        "_replay_unanswered",
        "_rewound_at",
        "_seen_by_cancel",
        "_unapplied_bytes",
        "closed",
        "connection",
        "id",
        "last_output",
        "next_output",
        "queued",
        "room",
        "size",
    )

    def __init__(
        self, room: str, session: str, connection: int, unapplied_bytes: UnappliedBytes | None = None
    ) -> None:
        self.room = room
        self.id = session
        self.connection = connection
        self.closed = False
        self.queued = False
        """True while the session waits in the publisher's queue; set by the publisher."""
        self._forgotten = False

        self._inputs: list[bytes] = []
        """The unapplied inputs, encoded."""
        self._base = 0
        """The number of the first unapplied input."""
        self._next = 0
        """The number of the input to be published next."""
        self._published = 0
        """The number below which all inputs have been published at least once."""
        self._rewound_at = -2
        self._seen_by_cancel = 0
        self.size = 0
        """The bytes of the unapplied inputs."""
        self._unapplied_bytes = unapplied_bytes or UnappliedBytes()

        self.next_output = 1
        """The number of the output to be written next."""
        self.last_output = 0
        """The highest number of an output that is known to exist."""
        self._early = _NO_OUTPUTS
        self._replay_due = False
        self._replay_unanswered = False

        self._repeat_timer = RepeatTimer()

    @property
    def resuming(self) -> bool:
        """Whether the client asks to resume a session; only a resumable one can be."""
        return False

    # --- inputs: from the client ---------------------------------------------------------------------------

    def connect(self, peer: str, accepted: int) -> Events:
        """Makes the first input. `accepted` is the connection's time in ms since the epoch (`bus.Connect`)."""
        return self._append(Connect(self.room, self.id, self.connection, peer, accepted))

    def input(self, frame: Frame) -> Events:
        """Takes a valid request or notification of the client."""
        id_ = frame.id if frame.request else None
        n = self._base + len(self._inputs)
        return self._append(Input(self.room, self.id, self.connection, n, frame.method, id_, bytes(frame.data)))

    def reject(self, id_: int | None, code: int, reason: str) -> Events:
        """Takes a rejected frame as an input, for the room worker to answer in its turn (DELIVERY I2)."""
        n = self._base + len(self._inputs)
        return self._append(RejectedInput(self.room, self.id, self.connection, n, id_, code, reason))

    def disconnect(self) -> Events:
        """Makes the last input once the socket has closed, if the room worker has heard of the session."""
        self._end_outputs()
        if self._published == 0 or self._forgotten:
            self._discard()
            return FORGOTTEN
        n = self._base + len(self._inputs)
        return self._append(Disconnect(self.room, self.id, self.connection, n))

    def _append(self, item: SessionItem) -> Events:
        encoded = encode_item(item)
        self._inputs.append(encoded)
        size = len(encoded)
        self.size += size
        self._unapplied_bytes.total += size
        return PUBLISH

    def _resize(self, change: int) -> None:
        self.size += change
        self._unapplied_bytes.total += change

    def _end_outputs(self) -> None:
        self.closed = True
        self._early = _NO_OUTPUTS
        self._replay_due = self._replay_unanswered = False

    def _discard(self) -> None:
        """Discards the inputs, so that nothing of this session is published any more."""
        self._inputs.clear()
        self._next = self._base
        self._resize(-self.size)
        self._replay_due = False
        self._forgotten = True

    def cancel_unpublished(self) -> list[int]:
        """Cancels the requests that were never published and returns their ids, to be answered 503.

        An input without effect keeps their numbers. What was published stays: it may have been done already.
        """
        ids = []
        start = max(self._published, self._seen_by_cancel, self._base)
        self._seen_by_cancel = self._base + len(self._inputs)
        for at in range(start - self._base, len(self._inputs)):
            item = decode_item(self._inputs[at])
            if isinstance(item, Input) and item.id is not None:
                ids.append(item.id)
                empty = RejectedInput(
                    self.room, self.id, self.connection, item.n, None, Unavailable.code, "cancelled"
                )
                self._resize(-len(self._inputs[at]))
                self._inputs[at] = encode_item(empty)
                self._resize(len(self._inputs[at]))
        return ids

    # --- inputs: to the room worker -------------------------------------------------------------------------

    @property
    def has_items(self) -> bool:
        """Whether `take` has an item."""
        return self._replay_due or self._next < self._base + len(self._inputs)

    def take(self) -> bytes | None:
        """Returns the next encoded item to publish, if there is one."""
        if self._replay_due:
            self._replay_due = False
            return encode_item(Replay(self.room, self.id, self.connection, self.next_output - 1))
        at = self._next - self._base
        if at >= len(self._inputs):
            return None
        self._next += 1
        self._published = max(self._published, self._next)
        return self._inputs[at]

    def rewind(self) -> bool:
        """Lets `take` start again with the first unapplied item, as what was published may be lost.

        Returns False if there is none.
        """
        self._next = self._base
        if self._replay_unanswered or self.has_gap:
            self.request_replay()
        return self.has_items

    def applied(self, report: Applied) -> Events:
        """Takes the room worker's report of how far the inputs are applied and how many outputs exist."""
        if report.n >= self._base:
            self._free(report.n)
        elif report.n < 0 and self._base > 0:
            self._discard()
            return FORGOTTEN if self.closed else CLOSE_SESSION_UNKNOWN
        if (report.again or report.n < 0) and self._rewound_at != self._base:
            # Every batch behind a gap is answered `again`; one rewind is enough until inputs are applied.
            self._rewound_at = self._base
            self._next = self._base
        self._replay_unanswered = False
        self._note_output(report.out)
        return self._next_step()

    def _free(self, n: int) -> None:
        count = min(n + 1 - self._base, len(self._inputs))
        self._resize(-sum(map(len, self._inputs[:count])))
        del self._inputs[:count]
        self._base += count
        if self._next < self._base:
            self._next = self._base
        self._repeat_timer.reset()

    def _next_step(self) -> Events:
        if self.closed and self._is_over:
            return FORGOTTEN
        return PUBLISH if self.has_items else NOTHING

    @property
    def _is_over(self) -> bool:
        """Whether the room worker knows all of a session whose socket is closed."""
        return not self._inputs

    @property
    def last_input(self) -> int:
        """The number of the last input; -1 if there is none yet."""
        return self._base + len(self._inputs) - 1

    @property
    def unapplied(self) -> int:
        """The number of unapplied inputs."""
        return len(self._inputs)

    def exceeds(self, limits: InputLimits) -> bool:
        """Returns whether the unapplied inputs reach the limits, so that the socket is not to be read."""
        return len(self._inputs) >= limits.items or self.size >= limits.size

    def below_half(self, limits: InputLimits) -> bool:
        """Returns whether the unapplied inputs are below half of the limits, so that the socket may be read again."""
        return 2 * len(self._inputs) <= limits.items and 2 * self.size <= limits.size

    # --- outputs --------------------------------------------------------------------------------------------

    def receive(self, out: int, message: Message) -> Events:
        """Takes output number `out` (0: not numbered) and returns what can be written now, in order."""
        if self.closed:
            return NOTHING
        if out == 0:
            return (message,)
        if out == self.next_output:
            return self._advance(out, message)
        return self._receive_early(out, message) if out > self.next_output else NOTHING

    def _advance(self, out: int, message: Message) -> Sequence[Message]:
        """Takes the next output; returns it and those that have waited for it."""
        self._replay_unanswered = False
        self.next_output += 1
        if self.last_output >= out:
            self._repeat_timer.reset()
        if not self._early:
            return (message,)
        return [message, *self._take_early()]

    def _take_early(self) -> list[Message]:
        ready = []
        while (early := self._early.pop(self.next_output, None)) is not None:
            ready.append(early)
            self.next_output += 1
        if not self._early:
            self._early = _NO_OUTPUTS
        return ready

    def _receive_early(self, out: int, message: Message) -> Events:
        self._replay_unanswered = False
        self._keep_early(out, message)
        return PUBLISH if self._note_output(out) else NOTHING

    def _keep_early(self, out: int, message: Message) -> None:
        if self._early is _NO_OUTPUTS:
            self._early = {}
        if len(self._early) < EARLY_OUTPUTS:
            self._early[out] = message

    def _note_output(self, out: int) -> bool:
        """Notes that output `out` exists; returns whether a replay is to be asked for because of that."""
        if out <= self.last_output:
            return False
        gap_was_known = self.has_gap
        self.last_output = out
        if out < self.next_output or gap_was_known:
            return False
        self.request_replay()
        return self._replay_due

    @property
    def has_gap(self) -> bool:
        """True while an output is known to exist that has not come."""
        return self.last_output >= self.next_output

    def request_replay(self) -> Events:
        """Asks the room worker for outputs that may have been lost, until it sends or reports something."""
        if self.closed:
            return NOTHING
        self._replay_due = self._replay_unanswered = True
        return PUBLISH

    # --- silence --------------------------------------------------------------------------------------------

    @property
    def awaits_worker(self) -> bool:
        """True while the room worker owes a report or an output."""
        return bool(self._inputs) or self._replay_unanswered or (self.has_gap and not self.closed)

    def sweep(self) -> Events:
        """Repeats what was published if the room worker is silent for too long. To be called at regular intervals."""
        if not (self.awaits_worker and self._repeat_timer.sweep()):
            return NOTHING
        self._rewound_at = -2
        self.rewind()
        return REPUBLISH
