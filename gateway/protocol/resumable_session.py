"""A session that outlives its connections, as one gateway sees it through one of them. Pure, as `Session`.

The client numbers its inputs itself (`cseq`) and is told the number of every output (`seq`), so that it can go on at
any gateway: what this one keeps is only what came over this connection. The life of a connection:

    asking    its `Connect` is not applied yet, or no `Link` has answered its `Resume`: nothing is written
    greeted   the client has been told that the session is on; messages pass both ways
    closed    the socket has gone: `ConnectionLost` is told until a `Link` releases the connection
"""

from enum import Enum, auto
from typing import Final, assert_never

from gateway.protocol import handshake
from gateway.protocol.frame_validation import MalformedFrame, ValidationResult
from gateway.protocol.handshake import Resumption
from gateway.protocol.session import Session
from shared.protocol.bus import Applied, Connect, ConnectionLost, Link, Message, Resume, encode_item
from shared.protocol.protoo import SessionInfo, session_frame

ACK_EVERY: Final = 32
"""Applied inputs after which the client hears of them, even if nothing else is to be sent: it keeps them."""
LINK_PATIENCE: Final = 20
"""Sweeps that a client waits for the answer to its resumption before it is sent elsewhere."""


class FramePosition(Enum):
    """Of a frame among the session's inputs."""

    NEXT = auto()
    DUPLICATE = auto()
    AHEAD = auto()
    """An earlier one is missing."""
    OUT_OF_SEQUENCE = auto()
    """It cannot be told: the client does not number as it must."""
    UNNUMBERED = auto()
    """It has no number."""


class ResumableSession(Session):
    """`final`, set before `disconnect`: the client will not come back."""

    kind = "resumable"
    revocable = False
    __slots__ = (
        "_age",
        "_ask",
        "_grace",
        "_guessed",
        "_insists",
        "_resume",
        "_secret",
        "_tell",
        "_told",
        "final",
        "greeted",
    )

    def __init__(
        self, room: str, session: str, connection: int, *, grace: float, resume: Resumption | None = None
    ) -> None:
        super().__init__(room, session, connection)
        self.final = False
        self.greeted = False
        self._grace = grace
        self._secret = ""
        self._resume: bytes | None = None
        """To be published until it is answered."""
        self._ask = False
        self._tell = False
        self._insists = False
        self._guessed = 0
        """The first number of those frames, the last that came, whose number could not be read."""
        self._told = 0
        self._age = 0
        if resume is not None:
            self.expected = resume.ack + 1
            self._resume = encode_item(
                Resume(room, session, connection, resume.token, attempt=resume.attempt, ack=resume.ack)
            )

    # --- its beginning ------------------------------------------------------------------------------------------

    @property
    def resuming(self) -> bool:
        """Whether it is taken up again is not known yet, nor which input is next."""
        return self._resume is not None

    def connect(self, peer: str, accepted: int) -> None:
        if self._resume is not None:
            self._ask = True
        else:
            self._secret = handshake.new_secret()
            token = handshake.digest(self._secret)
            self._keep(Connect(self.room, self.id, self.connection, peer, accepted, token))

    def linked(self, link: Link) -> list[Message]:
        """What can be written now. Afterwards look at `greeted` (if not, it is refused) and `forgotten`."""
        match link.state:
            case "resumed":
                return self._resumed(link) if self.resuming else []
            case "refused" if self.resuming and not self.closed:
                self._forget()
                return [Message(session_frame(SessionInfo(resumed=False)), [])]
            case "refused" | "released":
                # Both are for ever: no later attempt makes this connection the session's again.
                self._forget()
                return []
            case _:
                assert_never(link.state)

    def _resumed(self, link: Link) -> list[Message]:
        self._resume = None
        self._base = self._next = link.n + 1
        self._progress()
        if self.closed:
            self._tell = True
            return []
        if self.expected > link.out + 1:  # the client has what never was: it is not this session's
            self.final = True
            return [Message(session_frame(SessionInfo(resumed=False)), [])]
        self.known = max(self.known, link.out)
        return self._greet(SessionInfo(resumed=True, grace_seconds=self._grace, in_=link.n))

    def applied(self, report: Applied) -> None:
        if not self.resuming:
            super().applied(report)

    def answered(self) -> list[Message]:
        """To be asked after `applied`: what can be written because of it."""
        if self.closed or self.forgotten or self._base == 0:
            return []
        if not self.greeted:
            token = handshake.token(self.id, self._secret)
            self._secret = ""
            return self._greet(SessionInfo(resumed=False, grace_seconds=self._grace, token=token))
        if self._base - self._told >= ACK_EVERY:
            return [self.acknowledge()]
        return []

    def acknowledge(self) -> Message:
        """Tells the client how far its inputs are applied."""
        self._told = self._base
        return Message(session_frame(SessionInfo(ack=self._base - 1)), [])

    def _greet(self, info: SessionInfo) -> list[Message]:
        self.greeted = True
        self._told = self._base
        ready = [Message(session_frame(info), []), *self._early()]
        if self.missing:
            self.ask_replay()
        return ready

    # --- inputs -------------------------------------------------------------------------------------------------

    def place(self, verdict: ValidationResult) -> FramePosition:
        """Where the frame belongs; only one whose place is `NEXT` may become an input."""
        expected = self._base + len(self._kept)
        if self.resuming:
            return FramePosition.OUT_OF_SEQUENCE
        if isinstance(verdict, MalformedFrame) and not verdict.is_json:
            # Nothing gets lost on a socket, so of a client that numbers its frames it is the next. Asking for it
            # again would bring the same bytes, for ever.
            self._guessed = self._guessed or expected
            return FramePosition.NEXT
        cseq = verdict.cseq
        if cseq is None:
            return FramePosition.UNNUMBERED
        if cseq == expected:
            self._guessed = 0
            return FramePosition.NEXT
        if cseq > expected:
            return FramePosition.AHEAD
        return FramePosition.OUT_OF_SEQUENCE if 0 < self._guessed <= cseq else FramePosition.DUPLICATE

    # --- outputs ------------------------------------------------------------------------------------------------

    def receive(self, out: int, message: Message) -> tuple[Message, ...] | list[Message]:
        if out == 0:
            return super().receive(out, message) if self.greeted or message.close else ()
        if not self.greeted and not self.closed:
            if out >= self.expected:
                self._hold(out, message)
                self.known = max(self.known, out)
            return ()
        first = self.expected
        return [self._numbered(first + at, ready) for at, ready in enumerate(super().receive(out, message))]

    def _early(self) -> list[Message]:
        """What came before the greeting and is next."""
        ready = []
        while (held := self._held.pop(self.expected, None)) is not None:
            ready.append(self._numbered(self.expected, held))
            self.expected += 1
        return ready

    def _numbered(self, out: int, message: Message) -> Message:
        if message.close:
            return message
        self._told = self._base
        return Message(b'{"seq":%d,"ack":%d,' % (out, self._base - 1) + message.body[1:], [])

    def ask_replay(self) -> None:
        if self.greeted:
            super().ask_replay()

    # --- its end ------------------------------------------------------------------------------------------------

    def disconnect(self) -> None:
        self._end()
        if self._published == 0 or self.forgotten:
            self._forget()
        else:
            self._tell = True

    def _forget(self) -> None:
        super()._forget()
        self._resume = None
        self._ask = self._tell = self._asked = False

    @property
    def over(self) -> bool:
        return self.closed and self.forgotten

    @property
    def _may_tell(self) -> bool:
        """`ConnectionLost` goes after what it is about: it is not numbered, and would be the first to arrive."""
        if self.resuming or self._base == 0:
            return False
        return not self.final or not self._kept or self._insists

    # --- towards the worker -------------------------------------------------------------------------------------

    @property
    def sendable(self) -> bool:
        return self._ask or super().sendable or (self._tell and self._may_tell)

    def take(self) -> bytes | None:
        if self._ask:
            self._ask = False
            self._published = 1
            return self._resume
        item = super().take()
        if item is None and self._tell and self._may_tell:
            self._tell = False
            return encode_item(ConnectionLost(self.room, self.id, self.connection, final=self.final))
        return item

    def lost(self) -> None:
        super().lost()
        self._ask = self.resuming
        self._tell = self.closed and not self.forgotten

    @property
    def waiting(self) -> bool:
        return self.resuming or (self.closed and not self.forgotten) or super().waiting

    def sweep(self) -> bool:
        self._age += 1
        repeated = super().sweep()
        self._insists |= repeated and self.closed
        return repeated

    @property
    def overdue(self) -> bool:
        return self.resuming and not self.closed and self._age > LINK_PATIENCE
