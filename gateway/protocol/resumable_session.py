"""Keeps a gateway's side of a session that outlives its connections, for one of those connections.

The client numbers its inputs itself (`cseq`) and gets the number of every output (`seq`), so that it can go on at
any gateway: this one keeps only what came over this connection. The life of a connection:

    opening      its `Connect` is not applied yet, or no `Link` has answered its `Resume`: nothing is written
    established  the client has the first frame of the session; messages pass both ways
    closed       the socket has closed: `ConnectionLost` is published until a `Link` releases the connection
"""

from enum import Enum, auto
from typing import Final, assert_never

from gateway.protocol import handshake
from gateway.protocol.events import (
    CLOSE_RELEASED,
    CLOSE_SESSION_UNKNOWN,
    CLOSE_UNAVAILABLE,
    FORGOTTEN,
    NOTHING,
    PUBLISH,
    Events,
    ResumeAnswered,
)
from gateway.protocol.frame_validation import MalformedFrame, ValidationResult
from gateway.protocol.handshake import Resumption
from gateway.protocol.session import Session, UnappliedBytes
from shared.protocol.bus import Applied, Connect, ConnectionLost, Link, Message, Resume, encode_item
from shared.protocol.protoo import SessionInfo, session_frame

ACK_EVERY: Final = 32
"""The number of applied inputs that are acknowledged at the latest, even if nothing else is to be sent.

The client keeps its inputs until they are acknowledged."""
RESUMPTION_TIMEOUT: Final = 20
"""The number of sweeps that a client waits for the answer to its resumption before it is sent to another gateway."""


class FramePosition(Enum):
    """The position of a frame among the session's inputs."""

    NEXT = auto()
    DUPLICATE = auto()
    AHEAD = auto()
    """An earlier frame is missing."""
    OUT_OF_SEQUENCE = auto()
    """The position is unknown: the client does not number its frames as it must."""
    UNNUMBERED = auto()


class ResumableSession(Session):
    """A session that can be resumed, over one of its connections.

    `final` is set before `disconnect` if the client will not come back.

    `secret` is the random part of a new session's resume token (`handshake.token`).
    """

    kind = "resumable"
    cancellable = False
    __slots__ = (
        "_acknowledged",
        "_final_overdue",
        "_grace",
        "_guessed_from",
        "_lost_due",
        "_resume",
        "_resume_due",
        "_secret",
        "_sweeps",
        "established",
        "final",
    )

    def __init__(
        self,
        room: str,
        session: str,
        connection: int,
        unapplied_bytes: UnappliedBytes | None = None,
        *,
        grace: float,
        secret: str = "",
        resume: Resumption | None = None,
    ) -> None:
        super().__init__(room, session, connection, unapplied_bytes)
        self.final = False
        self.established = False
        self._grace = grace
        self._secret = secret
        self._resume: bytes | None = None
        """The encoded `Resume`, to be published until it is answered."""
        self._resume_due = False
        self._lost_due = False
        self._final_overdue = False
        """True if a final `ConnectionLost` no longer waits until the last inputs are applied."""
        self._guessed_from = 0
        """The number given to the first of those last frames whose own number could not be read."""
        self._acknowledged = 0
        """The number below which the client knows its inputs to be applied."""
        self._sweeps = 0
        if resume is not None:
            self.next_output = resume.ack + 1
            self._resume = encode_item(
                Resume(room, session, connection, resume.token, attempt=resume.attempt, ack=resume.ack)
            )

    # --- its beginning ------------------------------------------------------------------------------------------

    @property
    def resuming(self) -> bool:
        """True until the request to resume is answered; which input is next is not known before."""
        return self._resume is not None

    def connect(self, peer: str, accepted: int) -> Events:
        """Opens a new session, or asks to resume one."""
        if self._resume is not None:
            self._resume_due = True
            return PUBLISH
        token = handshake.digest(self._secret)
        return self._append(Connect(self.room, self.id, self.connection, peer, accepted, token))

    def linked(self, link: Link) -> Events:
        """Takes the room worker's decision about this connection to the session."""
        resuming = self.resuming
        match link.state:
            case "resumed":
                return self._resumed(link) if resuming else NOTHING
            case "refused" if resuming and not self.closed:
                self._discard()
                return self._resume_rejected()
            case "refused" | "released":
                # Both are final: no later attempt gives the session back to this connection.
                self._discard()
                answered = (ResumeAnswered(resumed=False),) if resuming else ()
                return (*answered, *self._removal())
            case _:
                assert_never(link.state)

    def _removal(self) -> Events:
        if self.closed:
            return FORGOTTEN
        # A release does not end the session: if no other connection took over, the room worker took this gateway for
        # dead, and the client is to resume. If another client uses its token, it is refused and starts a new session.
        return CLOSE_RELEASED if self.established else CLOSE_SESSION_UNKNOWN

    def _resume_rejected(self) -> Events:
        frame = Message(session_frame(SessionInfo(resumed=False)), [])
        return (frame, ResumeAnswered(resumed=False), *CLOSE_SESSION_UNKNOWN)

    def _resumed(self, link: Link) -> Events:
        self._resume = None
        self._base = self._next = link.n + 1
        self._repeat_timer.reset()
        if self.closed:
            self._lost_due = True
            return (ResumeAnswered(resumed=True), *self._next_step())
        if self.next_output > link.out + 1:  # the client claims outputs that never existed
            self.final = True
            return self._resume_rejected()
        self.last_output = max(self.last_output, link.out)
        messages = self._establish(SessionInfo(resumed=True, grace_seconds=self._grace, in_=link.n))
        return (*messages, ResumeAnswered(resumed=True), *self._next_step())

    def applied(self, report: Applied) -> Events:
        """Takes a report as `Session.applied` does; establishes a new session, acknowledges inputs to the client."""
        if self.resuming:
            return NOTHING
        events = super().applied(report)
        if self.closed or self._forgotten or self._base == 0:
            return events
        if not self.established:
            token = handshake.token(self.id, self._secret)
            self._secret = ""
            messages = self._establish(SessionInfo(resumed=False, grace_seconds=self._grace, token=token))
            return (*messages, *self._next_step())
        if self._base - self._acknowledged >= ACK_EVERY:
            return (self.acknowledge(), *events)
        return events

    def acknowledge(self) -> Message:
        """Returns a frame that acknowledges the applied inputs to the client."""
        self._acknowledged = self._base
        return Message(session_frame(SessionInfo(ack=self._base - 1)), [])

    def _establish(self, info: SessionInfo) -> list[Message]:
        """Returns the session's first frame, and the outputs that have waited for it."""
        self.established = True
        self._acknowledged = self._base
        first = self.next_output
        ready = [self._numbered(out, early) for out, early in enumerate(self._take_early(), first)]
        if self.has_gap:
            self.request_replay()
        return [Message(session_frame(info), []), *ready]

    # --- inputs -------------------------------------------------------------------------------------------------

    def position_of(self, frame: ValidationResult) -> FramePosition:
        """Returns the position of a frame; only one whose position is `NEXT` may become an input."""
        expected = self._base + len(self._inputs)
        if self.resuming:
            return FramePosition.OUT_OF_SEQUENCE
        if isinstance(frame, MalformedFrame) and not frame.is_json:
            # A socket loses nothing, so this frame is the next one. To ask for it again would bring the same bytes,
            # again and again.
            self._guessed_from = self._guessed_from or expected
            return FramePosition.NEXT
        cseq = frame.cseq
        if cseq is None:
            return FramePosition.UNNUMBERED
        if cseq == expected:
            self._guessed_from = 0
            return FramePosition.NEXT
        if cseq > expected:
            return FramePosition.AHEAD
        return FramePosition.OUT_OF_SEQUENCE if 0 < self._guessed_from <= cseq else FramePosition.DUPLICATE

    # --- outputs ------------------------------------------------------------------------------------------------

    def receive(self, out: int, message: Message) -> Events:
        """Takes an output as `Session.receive` does.

        A message gets its number, and waits until the session is established.
        """
        if self.closed:
            return NOTHING
        if out == 0:
            return (message,) if self.established or message.close else NOTHING
        if not self.established:
            if out >= self.next_output:
                self._keep_early(out, message)
                self.last_output = max(self.last_output, out)
            return NOTHING
        if out == self.next_output:
            return [self._numbered(n, ready) for n, ready in enumerate(self._advance(out, message), out)]
        return self._receive_early(out, message) if out > self.next_output else NOTHING

    def _numbered(self, out: int, message: Message) -> Message:
        if message.close:
            return message
        self._acknowledged = self._base
        return Message(b'{"seq":%d,"ack":%d,' % (out, self._base - 1) + message.body[1:], [])

    def request_replay(self) -> Events:
        """Asks for a replay as `Session.request_replay` does, once the session is established."""
        return super().request_replay() if self.established else NOTHING

    # --- its end ------------------------------------------------------------------------------------------------

    def disconnect(self) -> Events:
        """Publishes `ConnectionLost` once the socket has closed, if the room worker has heard of the connection."""
        self._end_outputs()
        if self._published == 0 or self._forgotten:
            self._discard()
            return FORGOTTEN
        self._lost_due = True
        return self._next_step()

    def _discard(self) -> None:
        super()._discard()
        self._resume = None
        self._resume_due = self._lost_due = self._replay_unanswered = False

    @property
    def _is_over(self) -> bool:
        return self._forgotten

    @property
    def _may_publish_lost(self) -> bool:
        """Whether `ConnectionLost` may be published now: it has no number, so it must follow what it is about."""
        if self.resuming or self._base == 0:
            return False
        return not self.final or not self._inputs or self._final_overdue

    # --- to the room worker -------------------------------------------------------------------------------------

    @property
    def has_items(self) -> bool:
        """Whether `take` has an item."""
        return self._resume_due or super().has_items or (self._lost_due and self._may_publish_lost)

    def take(self) -> bytes | None:
        """Returns the next encoded item to publish: a `Resume` first, a `ConnectionLost` last."""
        if self._resume_due:
            self._resume_due = False
            self._published = 1
            return self._resume
        item = super().take()
        if item is None and self._lost_due and self._may_publish_lost:
            self._lost_due = False
            return encode_item(ConnectionLost(self.room, self.id, self.connection, final=self.final))
        return item

    def rewind(self) -> bool:
        """Starts again with the first unapplied item; repeats an unanswered `Resume` or `ConnectionLost`, too."""
        self._resume_due = self.resuming
        self._lost_due = self.closed and not self._forgotten
        return super().rewind()

    @property
    def awaits_worker(self) -> bool:
        """True while the room worker owes a report, an output or a `Link`."""
        return self.resuming or (self.closed and not self._forgotten) or super().awaits_worker

    def sweep(self) -> Events:
        """Repeats as `Session.sweep` does.

        A client that waits too long for its resumption is sent to another gateway.
        """
        self._sweeps += 1
        events = super().sweep()
        self._final_overdue |= bool(events) and self.closed
        if self.resuming and not self.closed and self._sweeps > RESUMPTION_TIMEOUT:
            return (*events, *CLOSE_UNAVAILABLE)
        return events
