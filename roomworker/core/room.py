"""A room: its peers, and the journal of what a commit has to carry.

State changes only through `save`, `forget`, `notify`, `send`, `order` and the methods built on them, so that
`take` has all of it: fields to store, messages to send, orders for the media node.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias
from uuid import NAMESPACE_OID, uuid5

import msgspec
from msgspec import UNSET

from roomworker.core import stats
from roomworker.core.consumers import Consumer
from roomworker.core.limits import DEFAULTS, Limits
from roomworker.core.media_steps import Place, Placed, Steps, expect
from roomworker.core.peers import Peer
from roomworker.core.producers import Producer
from roomworker.core.record import Record
from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES, own_capabilities
from roomworker.core.sessions import Gone, Session
from shared.errors import NotFound, Unavailable
from shared.protocol import actions, bus, client, media, protoo
from shared.protocol.rtp import EffectiveProfile, RtpCapabilities, RtpParameters, Wire

META: Final = "meta"
GONE_KEPT: Final = 1000
EARLY_KEPT: Final = 256


class Placement(Wire, frozen=True):
    """The media node a room is on. `epoch` counts placements: what belongs to another is not ours."""

    node: str
    epoch: int


class Created(Record):
    """What the server API gave the room, which then lives on empty for `idle_seconds` from `idle_since` (ms)."""

    codecs: list[actions.RoomCodec] | None = None
    limits: actions.RoomLimits = actions.RoomLimits()
    idle_seconds: int = 0
    idle_since: int | None = None
    app_data: client.AppData = UNSET


class Meta(Record):
    """Stored as `meta`. `numbers` is the last number given to a peer or producer, `epochs` the last placement's.

    `events` is the number of the last event taken from the placement's node (DELIVERY I6).
    """

    name: str
    numbers: int = 0
    epochs: int = 0
    placement: Placement | None = None
    events: int = 0
    created: Created | None = None


Reply: TypeAlias = bus.CallAnswer | bus.Link


class Answered(NamedTuple):
    """The answer to a call of the server API, kept for whoever asks again with the same key."""

    code: int
    body: bytes


@dataclass(slots=True)
class Outgoing:
    """A committed message: a frame, or with `close` the reason for closing the socket with that code."""

    body: bytes
    to: list[tuple[Session, int]]
    close: int = 0


@dataclass(slots=True)
class Changes:
    """What one commit carries. `fields`: name → JSON, None deletes. `gone`: closed sessions (None: forget it).

    `answered` are calls of the server API by their key (None: forget it); `replies` is what gateways are told beside.
    `applied` has the sessions whose inputs or outputs moved, with the numbers that this commit makes true.
    """

    n: int
    fields: dict[str, bytes | None] = field(default_factory=dict)
    messages: list[Outgoing] = field(default_factory=list)
    orders: list[tuple[str, media.AnyOrder]] = field(default_factory=list)
    gone: "dict[str, Gone | None]" = field(default_factory=dict)
    applied: list[tuple[Session, int, int]] = field(default_factory=list)
    answered: dict[str, Answered | None] = field(default_factory=dict)
    replies: list[tuple[str, Reply]] = field(default_factory=list)


_encode = msgspec.json.Encoder().encode


class Room:
    def __init__(self, name: str, partition: int, incarnation: str, n: int = 0, limits: Limits = DEFAULTS) -> None:
        self.name = name
        self.partition = partition
        self.incarnation = incarnation
        self.n = n
        self.meta = Meta(name=name)
        self.rtp_capabilities: RtpCapabilities = DEFAULT_ROOM_CAPABILITIES
        self._defaults = limits
        self.limits = limits
        self.sessions: dict[str, Session] = {}
        self.session_of: dict[str, Session] = {}
        self.peers: dict[str, Peer] = {}
        self.gone: dict[str, Gone] = {}
        self.answered: dict[str, Answered] = {}
        # derived, never stored
        self.sources: dict[int, tuple[Peer, Producer]] = {}
        self.consumers_by_engine: dict[str, tuple[Peer, Consumer]] = {}
        self.derived: dict[tuple[int, str], RtpParameters] = {}
        self._early_profiles: dict[media.EngineId, EffectiveProfile] = {}
        self.reporters: dict[stats.Reporter, int] = {}
        self.stats_wanted: list[stats.Reporter] = []
        # the journal
        self._dirty: dict[str, Record | None] = {}
        self._messages: list[Outgoing] = []
        self._orders: list[tuple[str, media.AnyOrder]] = []
        self._gone: dict[str, Gone | None] = {}
        self._moved: dict[str, Session] = {}
        self._answered: dict[str, Answered | None] = {}
        self._replies: list[tuple[str, Reply]] = []
        self._resumed: dict[str, Session] = {}

    def configure(self) -> None:
        """Lets what the room was created with take effect."""
        created = self.meta.created
        self.limits = self._defaults.with_own(created.limits) if created else self._defaults
        own = created.codecs if created else None
        self.rtp_capabilities = own_capabilities(own) if own else DEFAULT_ROOM_CAPABILITIES

    # --- the journal ------------------------------------------------------------------------------------------

    def save(self, name: str, record: Record) -> None:
        self._dirty[name] = record

    def forget(self, name: str) -> None:
        self._dirty[name] = None

    def save_meta(self) -> None:
        self.save(META, self.meta)

    def touch(self, session: Session) -> None:
        """The session's numbers moved."""
        self._moved[session.id] = session
        if self.sessions.get(session.id) is session:
            self._dirty[session.field] = session

    def send(self, session: Session, body: bytes, close: int = 0) -> None:
        """A frame (or a close) for one session."""
        self._messages.append(Outgoing(body, [(session, self._number(session, len(body)))], close))

    def _number(self, session: Session, size: int) -> int:
        """The session's next output's."""
        session.n_out += 1
        if session.lost_at is not None:
            session.lost_bytes += size
        if session.id not in self._moved:
            self.touch(session)
        return session.n_out

    def notify(self, to: Iterable[Peer], notification: client.ToClient) -> None:
        """One notification for several peers, encoded once (DELIVERY O4)."""
        self.tell(to, lambda: protoo.notification_frame(notification))

    def tell(self, to: Iterable[Peer], frame: Callable[[], bytes]) -> None:
        """One frame for several peers; made only if there are any."""
        receivers = [peer.session for peer in to]
        if receivers:
            body = frame()
            size, number = len(body), self._number
            self._messages.append(Outgoing(body, [(session, number(session, size)) for session in receivers]))

    def order(self, order: media.AnyOrder) -> None:
        """For the room's media node, sent once this is committed; `order.v` is `next_n`."""
        if self.meta.placement is not None:
            self._orders.append((self.meta.placement.node, order))

    def bury(self, session: Session) -> None:
        """Remembers a closed session, so that what is still under way from it is no new arrival (DELIVERY I5)."""
        self.gone[session.id] = self._gone[session.id] = Gone(session.n_in, session.n_out)
        self._moved[session.id] = session
        if len(self.gone) > GONE_KEPT:
            oldest = next(iter(self.gone))
            del self.gone[oldest]
            self._gone[oldest] = None

    def answer(self, call: bus.Call, code: int, body: bytes, *, keep: bool) -> None:
        """Answers a call of the server API once its effect is committed; kept answers are known again."""
        self._replies.append((call.reply_to, bus.CallAnswer(call.n, code, body)))
        if keep:
            self.answered[call.key] = self._answered[call.key] = Answered(code, body)
            if len(self.answered) > GONE_KEPT:
                oldest = next(iter(self.answered))
                del self.answered[oldest]
                self._answered[oldest] = None

    @property
    def next_n(self) -> int:
        """The number of the commit that will carry what is being changed now."""
        return self.n + 1

    @property
    def changed(self) -> bool:
        return bool(self._dirty or self._messages or self._orders or self._gone or self._moved or self._answered)

    @property
    def exists(self) -> bool:
        """Whether anybody could tell it from a room that was never there."""
        return bool(self.sessions) or self.meta.created is not None

    @property
    def empty(self) -> bool:
        return not self.exists

    def take(self) -> Changes:
        """Everything since the last `take`, for one commit; the journal starts anew."""
        self.n += 1
        changes = Changes(
            self.n,
            {name: None if record is None else _encode(record) for name, record in self._dirty.items()},
            self._messages,
            self._orders,
            self._gone,
            [(session, session.n_in, session.n_out) for session in self._moved.values()],
            self._answered,
            self.take_replies(),
        )
        self._dirty, self._messages, self._orders, self._gone, self._moved, self._answered = {}, [], [], {}, {}, {}
        return changes

    def take_replies(self) -> list[tuple[str, Reply]]:
        """What gateways are told even if there is nothing to commit."""
        for session in self._resumed.values():
            if not session.gateway:
                continue  # lost again meanwhile
            link = bus.Link(session.connection, session.id, "resumed", session.n_in, session.n_out)
            self._replies.append((session.gateway, link))
        replies, self._replies, self._resumed = self._replies, [], {}
        return replies

    def link(self, gateway: str, link: bus.Link) -> None:
        """What became of a connection of a resumable session."""
        self._replies.append((gateway, link))

    def link_resumed(self, session: Session) -> None:
        """It goes on over its present connection, from the numbers that will then be committed."""
        self._resumed[session.id] = session

    # --- numbers and names ------------------------------------------------------------------------------------

    def take_number(self) -> int:
        self.meta.numbers += 1
        self.save_meta()
        return self.meta.numbers

    def engine_id(self, peer: Peer, kind: media.ObjectKind, object_id: int, updates: int = 0) -> media.EngineId:
        """The same for a message that is done again, never the same for another object (DELIVERY T3).

        `updates` tells an object from its predecessor with the same id, which is still there.
        """
        name = (
            f"{self.incarnation}/{peer.session.id}/{peer.session.joins}/{kind}/{object_id}"
            f"/{self.meta.epochs}/{peer.data.generation}/{updates}"
        )
        return str(uuid5(NAMESPACE_OID, name))

    def forget_derived(self, producer: Producer) -> None:
        for key in [key for key in self.derived if key[0] == producer.number]:
            del self.derived[key]

    # --- the media node ---------------------------------------------------------------------------------------

    def place(self) -> Steps[None]:
        """Makes sure that the room is on a media node. Raises `Unavailable`: there is none."""
        if self.meta.placement is not None:
            return
        placed = expect((yield Place()), Placed)
        if self.meta.placement is None:  # another peer's message may have been faster
            self.meta.epochs += 1
            self.meta.placement = Placement(placed.node, self.meta.epochs)
            self.meta.events = 0
            self.save_meta()

    def is_on(self, node: str, held: bus.HeldRouter) -> bool:
        """Whether the router that the node has is the room's own."""
        placement = self.meta.placement
        return (
            placement is not None
            and held.incarnation == self.incarnation
            and (placement.node, placement.epoch) == (node, held.epoch)
        )

    def disown(self, node: str, held: bus.HeldRouter) -> None:
        """Has a router closed that is not the room's; the epoch of a placement that was not committed is used up."""
        if held.incarnation == self.incarnation and held.epoch > self.meta.epochs:
            self.meta.epochs = held.epoch
            self.save_meta()
        self._orders.append((node, media.Close(object=held.router, v=self.next_n, kind="router")))

    @property
    def router(self) -> media.RouterRef:
        """Raises `Unavailable` when the room is on no node."""
        placement = self.meta.placement
        if placement is None:
            raise Unavailable("the room lost its media node: create the transport again")
        return media.RouterRef(
            id=self._router_id(placement),
            partition=self.partition,
            room=self.name,
            incarnation=self.incarnation,
            epoch=placement.epoch,
        )

    def _router_id(self, placement: Placement) -> media.EngineId:
        return _router_id(self.incarnation, placement.epoch)

    def unplace(self) -> None:
        """Nobody is here any more: the router is closed."""
        placement = self.meta.placement
        if placement is not None:
            self.order(media.Close(object=self._router_id(placement), v=self.next_n, kind="router"))
            self.meta.placement = None
            self.save_meta()

    def keep_early_profile(self, engine: media.EngineId, profile: EffectiveProfile) -> None:
        """For a consumer that is being made: the engine's event may overtake the answer."""
        self._early_profiles[engine] = profile
        if len(self._early_profiles) > EARLY_KEPT:
            del self._early_profiles[next(iter(self._early_profiles))]

    def take_early_profile(self, engine: media.EngineId) -> EffectiveProfile | None:
        return self._early_profiles.pop(engine, None)

    def here(self, peer: Peer) -> "Here":
        return Here(self, peer, self.meta.epochs)

    @contextmanager
    def releasing(self, peer: Peer, kind: media.ObjectKind, engine: media.EngineId) -> Iterator["Here"]:
        """While the engine makes `engine`: should the handler not come to its end, the engine is told to close it."""
        here = self.here(peer)
        try:
            yield here
        except BaseException:
            if here.placed:
                self.release(peer, kind, engine)
            raise

    def release(self, peer: Peer, kind: media.ObjectKind, engine: media.EngineId) -> None:
        self.order(media.Close(object=engine, v=self.next_n, kind=kind))
        peer.data.generation += 1
        if self.peers.get(peer.name) is peer:
            self.save(peer.field, peer.data)


class Here:
    """Where a handler stood before it yielded: its peer and the room's placement may be gone afterwards."""

    __slots__ = ("_epoch", "_peer", "_room")

    def __init__(self, room: Room, peer: Peer, epoch: int) -> None:
        self._room, self._peer, self._epoch = room, peer, epoch

    @property
    def placed(self) -> bool:
        return self._room.meta.placement is not None and self._room.meta.epochs == self._epoch

    def check(self) -> None:
        """Raises `NotFound` or `Unavailable` if what the handler relied on is gone."""
        if self._room.peers.get(self._peer.name) is not self._peer:
            raise NotFound("peer: has left")
        if not self.placed:
            raise Unavailable("the room lost its media node: try again")


def query(room: Room, message: client.QueryRoom) -> client.RoomInfo:
    return client.RoomInfo(rtp_capabilities=room.rtp_capabilities)


@lru_cache(maxsize=4096)
def _router_id(incarnation: str, epoch: int) -> media.EngineId:
    """Every request names it, and computing it costs as much as finding the room."""
    return str(uuid5(NAMESPACE_OID, f"{incarnation}/router/{epoch}"))
