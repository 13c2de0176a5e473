"""Records everything that a room's next commit has to carry.

Handlers change the room's records in place and record that in the journal: fields to store by `save`, `delete` and
`save_session`, messages by `send`, `notify` and `send_to_peers`, orders for the media node by `order`. `take` hands
all of it over.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from roomworker.core.model import META, ClosedSession, Meta, Peer, Record, Session, StoredAnswer
from shared.protocol import bus, client, media, protoo

CLOSED_SESSIONS_LIMIT: Final = 1000
RECEIVER_BYTES: Final = 256
"""Bytes that each receiver of a message counts as: a short message costs a commit and a write for each, too."""
ANSWERED_CALLS_LIMIT: Final = 1000
ANSWERS_BYTES_LIMIT: Final = 1024 * 1024
"""Bytes of answers to calls that a room remembers, and an answer may have a sixteenth of them."""

Reply: TypeAlias = bus.CallAnswer | bus.Link


@dataclass(slots=True)
class Outgoing:
    """A committed message for the sessions in `to`, each with its output number.

    `body` is a frame; with `close`, a close code, it is the reason for closing the sockets.
    """

    body: bytes
    to: list[tuple[Session, int]]
    close: int = 0


@dataclass(slots=True)
class Changes:
    """The contents of commit number `n`.

    `fields` has the stored record's JSON by field name (None: delete it), `closed_sessions` the sessions that were
    closed (None: forget it), `answered_calls` calls of the server API by key (None: forget it). `messages` and
    `orders` (with the media node's id) are sent once they are committed, and `replies` to gateways (by id) with them.
    `applied` has the sessions whose inputs or outputs moved, with the numbers that this commit makes true.
    """

    n: int
    fields: dict[str, bytes | None] = field(default_factory=dict)
    messages: list[Outgoing] = field(default_factory=list)
    orders: list[tuple[str, media.AnyOrder]] = field(default_factory=list)
    closed_sessions: dict[str, ClosedSession | None] = field(default_factory=dict)
    applied: list[tuple[Session, int, int]] = field(default_factory=list)
    answered_calls: dict[str, StoredAnswer | None] = field(default_factory=dict)
    replies: list[tuple[str, Reply]] = field(default_factory=list)


_encode = msgspec.json.Encoder().encode


class Journal:
    """The part of a `Room` that records changes. `n` is the number of the last commit taken."""

    def __init__(self, name: str, n: int) -> None:
        self.n = n
        self.meta = Meta(name=name)
        self.sessions: dict[str, Session] = {}
        """Open sessions by id."""
        self.closed_sessions: dict[str, ClosedSession] = {}
        self.answered_calls: dict[str, StoredAnswer] = {}
        self.sent_bytes = 0
        """Bytes of all messages so far, times their receivers, and `RECEIVER_BYTES` for each receiver."""
        self.kept_bytes = 0
        """Bytes of all messages so far, each of which is stored once."""
        # changes since the last commit
        self._fields: dict[str, Record | None] = {}
        self._messages: list[Outgoing] = []
        self._orders: list[tuple[str, media.AnyOrder]] = []
        self._newly_closed: dict[str, ClosedSession | None] = {}
        self._moved: dict[str, Session] = {}
        self._newly_answered: dict[str, StoredAnswer | None] = {}
        self._replies: list[tuple[str, Reply]] = []
        self._resumed: dict[str, Session] = {}

    # --- records ----------------------------------------------------------------------------------------------

    def save(self, name: str, record: Record) -> None:
        """Stores the record in the field `name`, as it is when the commit is taken."""
        self._fields[name] = record

    def delete(self, name: str) -> None:
        """Deletes the field `name`."""
        self._fields[name] = None

    def save_meta(self) -> None:
        """Stores the room's own record."""
        self.save(META, self.meta)

    def save_session(self, session: Session) -> None:
        """Stores the session, if it is open, and reports its numbers to its gateway once they are committed."""
        self._moved[session.id] = session
        if self.sessions.get(session.id) is session:
            self._fields[session.field] = session

    def record_closed_session(self, session: Session) -> None:
        """Records the session's last numbers, so that its late inputs are known as duplicates (DELIVERY I5)."""
        closed = ClosedSession(session.n_in, session.n_out)
        self.closed_sessions[session.id] = self._newly_closed[session.id] = closed
        self._moved[session.id] = session
        if len(self.closed_sessions) > CLOSED_SESSIONS_LIMIT:
            oldest = next(iter(self.closed_sessions))
            del self.closed_sessions[oldest]
            self._newly_closed[oldest] = None

    # --- messages ---------------------------------------------------------------------------------------------

    def send(self, session: Session, body: bytes, close: int = 0) -> None:
        """Sends one session a frame, or with `close`, a close code, the reason for closing its socket."""
        self.kept_bytes += len(body)
        self._messages.append(Outgoing(body, [(session, self._next_output(session, len(body)))], close))

    def notify(self, to: Iterable[Peer], notification: client.ToClient) -> None:
        """Sends one notification to several peers, encoded once (DELIVERY O4)."""
        self.send_to_peers(to, lambda: protoo.notification_frame(notification))

    def send_to_peers(self, to: Iterable[Peer], frame: Callable[[], bytes]) -> None:
        """Sends one frame to several peers; `frame` is called only if there are any."""
        receivers = [peer.session for peer in to]
        if receivers:
            body = frame()
            size, next_output = len(body), self._next_output
            self.kept_bytes += size
            self._messages.append(Outgoing(body, [(session, next_output(session, size)) for session in receivers]))

    def _next_output(self, session: Session, size: int) -> int:
        """Returns the number of the session's next output, of `size` bytes."""
        session.n_out += 1
        self.sent_bytes += size + RECEIVER_BYTES
        if session.lost_at is not None:
            session.lost_bytes += size
        if session.id not in self._moved:
            self.save_session(session)
        return session.n_out

    # --- orders and replies -----------------------------------------------------------------------------------

    def order(self, order: media.AnyOrder) -> None:
        """Sends an order to the room's media node once the changes are committed; `order.v` is `next_n`."""
        if self.meta.placement is not None:
            self.order_node(self.meta.placement.node, order)

    def order_node(self, node: str, order: media.AnyOrder) -> None:
        """Sends an order to any media node once the changes are committed."""
        self._orders.append((node, order))

    def answer_call(self, call: bus.Call, code: int, body: bytes, *, keep: bool) -> None:
        """Answers a call of the server API once its effect is committed; with `keep` the answer is stored.

        The only answers too large for that are descriptions of full rooms, whose creation may well be repeated.
        """
        self._replies.append((call.reply_to, bus.CallAnswer(call.n, code, body)))
        if keep and len(body) <= ANSWERS_BYTES_LIMIT // 16:
            self.answered_calls[call.key] = self._newly_answered[call.key] = StoredAnswer(code, body)
            size = sum(len(answer.body) for answer in self.answered_calls.values())
            while len(self.answered_calls) > ANSWERED_CALLS_LIMIT or size > ANSWERS_BYTES_LIMIT:
                oldest = next(iter(self.answered_calls))
                size -= len(self.answered_calls.pop(oldest).body)
                self._newly_answered[oldest] = None

    def reply_link(self, gateway: str, link: bus.Link) -> None:
        """Replies to a gateway whether a connection has a resumable session."""
        self._replies.append((gateway, link))

    def reply_resumed(self, session: Session) -> None:
        """Replies to the session's gateway that its connection is accepted, and which numbers are then committed."""
        self._resumed[session.id] = session

    # --- taking -----------------------------------------------------------------------------------------------

    @property
    def next_n(self) -> int:
        """The number of the commit that will carry what is being changed now."""
        return self.n + 1

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return bool(
            self._fields
            or self._messages
            or self._orders
            or self._newly_closed
            or self._moved
            or self._newly_answered
        )

    def take(self) -> Changes:
        """Returns all changes since the last `take`, for one commit; the journal is then empty."""
        self.n += 1
        changes = Changes(
            self.n,
            {name: None if record is None else _encode(record) for name, record in self._fields.items()},
            self._messages,
            self._orders,
            self._newly_closed,
            [(session, session.n_in, session.n_out) for session in self._moved.values()],
            self._newly_answered,
            self.take_replies(),
        )
        self._fields, self._messages, self._orders = {}, [], []
        self._newly_closed, self._moved, self._newly_answered = {}, {}, {}
        return changes

    def take_replies(self) -> list[tuple[str, Reply]]:
        """Returns the replies to gateways, by their ids; they are due even if there is nothing to commit."""
        for session in self._resumed.values():
            if session.gateway:  # else the connection was lost again meanwhile
                link = bus.Link(session.connection, session.id, "resumed", session.n_in, session.n_out)
                self._replies.append((session.gateway, link))
        replies, self._replies, self._resumed = self._replies, [], {}
        return replies
