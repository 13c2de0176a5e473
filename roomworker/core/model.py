"""Defines the records of a room's objects, each stored as JSON in a field of its own of the hash `room:{R}`.

    meta   session|<peer>   peer|<peer>   transport|<id>|<peer>   producer|<id>|<peer>   consumer|<id>|<peer>

The peer's name stands last, so that it may contain anything. Records hold facts; what follows from them is computed
again on loading. Behaviour is in the modules of the same names in the plural.
"""

from typing import ClassVar, Final, Literal, NamedTuple, TypeAlias

from msgspec import UNSET, Struct

from roomworker.core.rtp import ortc
from shared.protocol import actions, client
from shared.protocol.rtp import (
    EffectiveProfile,
    Kind,
    PayloadTypeMapping,
    Profile,
    RtpCapabilities,
    RtpParameters,
    Wire,
)

META: Final = "meta"
FIRST_INPUT: Final = 0
"""The number of a session's `bus.Connect`."""

ReporterKind: TypeAlias = Literal["transport", "producer", "consumer"]
Reporter: TypeAlias = tuple[ReporterKind, str, int]
"""A media object that reports stats: (kind, peer's name, id)."""


class Record(Struct, rename="camel", eq=False):
    """Base of the records: mutable, and stored as they are."""


# --- the room -------------------------------------------------------------------------------------------------


class Placement(Wire, frozen=True):
    """The media node that a room is on.

    `epoch` counts the room's placements: results and events of another epoch are not for this placement.
    `engine_deaths` is the number that the node was told, the same in every request.
    """

    node: str
    epoch: int
    engine_deaths: int = 0


class EngineDeaths(Record):
    """The engines that died under the room, one soon after another (`roomworker.core.engine_deaths`).

    `number` counts them, `alone` those of the latest at which no other room on the engine had as many. `times` are
    those of the last ones; all times are ms, room time, and 0 is a time that was not known. The room has no media
    until `refused_until`; 0: media was never refused.
    """

    number: int
    times: list[int]
    alone: int = 0
    refused_until: int = 0


class Created(Record):
    """The settings that the server API created the room with.

    A created room stays, without any session, for `idle_seconds` from `idle_since` (ms, room time) on.
    """

    codecs: list[actions.RoomCodec] | None = None
    limits: actions.RoomLimits = actions.RoomLimits()
    idle_seconds: int = 0
    idle_since: int | None = None
    app_data: client.AppData = UNSET


class Meta(Record):
    """The room itself, stored as `meta`.

    `numbers` is the last number given to a peer or producer, `epochs` that of the last placement, `events` that of
    the last event taken from the placement's node (DELIVERY I6). `engine_deaths` is None until an engine dies.
    """

    name: str
    numbers: int = 0
    epochs: int = 0
    placement: Placement | None = None
    events: int = 0
    created: Created | None = None
    engine_deaths: EngineDeaths | None = None


class StoredAnswer(NamedTuple):
    """The answer to a call of the server API, given again to a call with the same key."""

    code: int
    body: bytes


# --- sessions -------------------------------------------------------------------------------------------------


class Session(Record):
    """A client's session, stored as `session|<peer>`. `n_in` is the last input applied, `n_out` the last output.

    `gateway` is empty while the session has no connection; `lost_at` is the time since when (ms, room time; 0 until
    the next tick sets it), `lost_bytes` the size of the outputs since then. `token` is the hash of the resume token,
    `attempt` the number of the last resumption. `joins` counts how often the peer has joined: the media objects of
    one join and the next have different engine ids. `accepted` is for workers of the version before
    (`shared.protocol.bus.Connect`).
    """

    id: str
    peer: str
    gateway: str
    connection: int
    accepted: int = 0
    token: str = ""
    n_in: int = FIRST_INPUT
    n_out: int = 0
    joins: int = 0
    attempt: int = 0
    lost_at: int | None = None
    lost_bytes: int = 0

    @property
    def field(self) -> str:
        return f"session|{self.peer}"


class ClosedSession(NamedTuple):
    """The last numbers of a closed session (DELIVERY I5)."""

    n_in: int
    n_out: int


# --- media objects --------------------------------------------------------------------------------------------


class Transport(Record):
    """A peer's WebRTC transport, stored as `transport|<id>|<peer>`. `engine` is its engine id.

    `connected` is true once DTLS parameters are known, `restarts` counts ICE restarts, `stats_interval` (ms) is 0
    unless the transport reports stats.
    """

    record_kind: ClassVar[ReporterKind] = "transport"

    id: int
    engine: str
    direction: Literal["send", "recv"]
    connected: bool = False
    restarts: int = 0
    stats_interval: int = 0
    app_data: client.AppData = UNSET


class Producer(Record):
    """Media that a peer sends, stored as `producer|<id>|<peer>`. `transport` is the id of its peer's transport.

    `number` is the producer's number in the room. Its consumers have that number as their id, for every receiver, so
    that receivers can share one message (DELIVERY O4). A producer is paused remotely by its own client, locally by
    the server.
    """

    record_kind: ClassVar[ReporterKind] = "producer"

    id: int
    number: int
    engine: str
    transport: int
    kind: Kind
    rtp_parameters: RtpParameters
    payload_types: list[PayloadTypeMapping]
    mapped_ssrcs: list[int]
    remotely_paused: bool = False
    locally_paused: bool = False
    updates: int = 0
    stats_interval: int = 0
    app_data: client.AppData = UNSET

    @property
    def paused(self) -> bool:
        return self.remotely_paused or self.locally_paused


class Consumer(Record):
    """A producer's media on its way to one peer, stored as `consumer|<id>|<peer>`.

    A consumer is enabled while it has a `transport` (its peer's transport id). It is paused remotely by its own
    client, locally by the server; a pause of the producer is not recorded here.
    """

    record_kind: ClassVar[ReporterKind] = "consumer"

    id: int
    transport: int | None = None
    engine: str = ""
    remotely_paused: bool = False
    locally_paused: bool = False
    preferred_profile: Profile = "default"
    effective_profile: EffectiveProfile | None = None
    stats_interval: int = 0

    @property
    def enabled(self) -> bool:
        return self.transport is not None

    @property
    def paused(self) -> bool:
        return self.remotely_paused or self.locally_paused


MediaObject: TypeAlias = Transport | Producer | Consumer


# --- peers ----------------------------------------------------------------------------------------------------


class PeerData(Record):
    """The record of a joined peer, stored as `peer|<name>`. A `spy` sees the others and is announced to no peer.

    `number` orders peers by arrival. `generation` counts how many of the peer's media objects were closed, so that
    an engine id is never used twice.
    """

    name: str
    number: int
    rtp_capabilities: RtpCapabilities
    generation: int = 0
    spy: bool = False
    app_data: client.AppData = UNSET


class Peer:
    """A joined peer: its record, its session and its media objects by id."""

    __slots__ = ("_capability_key", "consumers", "data", "name", "producers", "session", "transports")

    def __init__(self, data: PeerData, session: Session) -> None:
        self.data = data
        self.name = data.name
        self.session = session
        self.transports: dict[int, Transport] = {}
        self.producers: dict[int, Producer] = {}
        self.consumers: dict[int, Consumer] = {}
        self._capability_key: str | None = None

    @property
    def field(self) -> str:
        return f"peer|{self.name}"

    def field_of(self, owned: MediaObject) -> str:
        """Returns the field in which one of the peer's media objects is stored."""
        return f"{owned.record_kind}|{owned.id}|{self.name}"

    @property
    def capability_key(self) -> str:
        """Returns a key that is equal for peers that receive equal consumer parameters."""
        if self._capability_key is None:
            self._capability_key = ortc.capability_key(self.data.rtp_capabilities)
        return self._capability_key
