"""Defines the messages between room workers and media nodes: commands, their results, and the engine's events.

The terms are protocol v2's (kind, profile, muxId); only the engine adapter in `medianode` knows the engine's. Ids are
engine ids: UUID strings that the room core derives, so that a repeated command finds the same object.

*Requests* (`Request`) precede a commit and have a result; asked twice, a node answers from its memory until the
object is closed. *Orders* (`Order`) follow a commit and have none; each carries the room's commit number `v`, and a
node ignores an order older than the last one for the same property of the object, so that a room worker that resumes
late cannot undo its successor's work, and orders may be sent again. A close is final: a request or order for a closed
object has no effect (a request is answered with an error).

In docstrings `→` precedes the result of a request, and § a message of the specification that leads to it.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from shared.protocol.rtp import (
    DtlsParameters,
    EffectiveProfile,
    IceCandidate,
    IceParameters,
    Kind,
    PayloadTypeMapping,
    Profile,
    RtpParameters,
    Wire,
)

EngineId: TypeAlias = str
ObjectKind: TypeAlias = Literal["router", "transport", "producer", "consumer"]


class RouterRef(Wire, frozen=True):
    """The router of a room on its media node, created by the first request that names it.

    `partition` and `room` say where its events go; by `incarnation` and `epoch` the room recognises events of its
    present placement. `engine_deaths` is the number of engines that had died under the room, one soon after another,
    when it was placed: the node keeps rooms with deaths apart from each other.
    """

    id: EngineId
    partition: int
    room: str
    incarnation: str
    epoch: int
    engine_deaths: int = 0


# --- requests -----------------------------------------------------------------------------------------------


class Request(Wire, frozen=True, tag_field="do", tag=lambda name: name[0].lower() + name[1:]):
    """Base of the requests; `router` is the router of the room."""

    router: RouterRef


class CreateTransport(Request, frozen=True):
    """→ `TransportCreated` (§createTransport). With the client's `dtls_parameters` it is connected as well."""

    transport: EngineId
    udp: bool = True
    tcp: bool = True
    prefer_udp: bool = False
    prefer_tcp: bool = False
    dtls_parameters: DtlsParameters | None = None


class ConnectTransport(Request, frozen=True):
    """→ `TransportConnected` (§updateTransport)."""

    transport: EngineId
    dtls_parameters: DtlsParameters


class RestartIce(Request, frozen=True):
    """→ `IceRestarted` (§restartTransport). Every request makes new parameters unless `generation` was seen."""

    transport: EngineId
    generation: int


class Produce(Request, frozen=True):
    """→ `Produced` (§createProducer).

    `rtp_parameters` are the client's own with `encodings` sorted low to high; `mapped_ssrcs` has one SSRC
    per encoding, `payload_types` the room's payload type of each codec. `updatable`: an `UpdateProducer` may follow.
    """

    transport: EngineId
    producer: EngineId
    kind: Kind
    rtp_parameters: RtpParameters
    payload_types: list[PayloadTypeMapping]
    mapped_ssrcs: list[int]
    paused: bool = False
    updatable: bool = False


class UpdateProducer(Request, frozen=True):
    """→ `Produced` (§updateProducer). The client sends with other SSRCs from now on.

    The producer (made `updatable`) and its consumers stay: receivers see the same SSRCs go on. `rtp_parameters`
    and `payload_types` are as in `Produce`, with as many encodings. `generation` counts up; a request with the last
    generation or an older one is answered without effect.
    """

    producer: EngineId
    rtp_parameters: RtpParameters
    payload_types: list[PayloadTypeMapping]
    generation: int


class Consume(Request, frozen=True):
    """→ `Consumed` (§enableConsumer).

    `rtp_parameters` are those that the receiving client was sent, `producer_ssrcs` the producer's `mapped_ssrcs`.
    """

    transport: EngineId
    consumer: EngineId
    producer: EngineId
    kind: Kind
    rtp_parameters: RtpParameters
    producer_ssrcs: list[int]
    paused: bool = False
    preferred_profile: Profile = "default"


class GetStats(Request, frozen=True):
    """→ `Stats`, in protocol v2's form with the ids given here (§transportStats, §producerStats, §consumerStats)."""

    kind: Literal["transport", "producer", "consumer"]
    object: EngineId
    id: int
    transport_id: int | UnsetType = UNSET


AnyRequest: TypeAlias = (
    CreateTransport | ConnectTransport | RestartIce | Produce | UpdateProducer | Consume | GetStats
)


# --- results ------------------------------------------------------------------------------------------------


class Result(Wire, frozen=True, tag_field="is", tag=lambda name: name[0].lower() + name[1:]):
    """Base of the results."""


class TransportCreated(Result, frozen=True):
    """`dtls_parameters.role` is `auto` until connected; sha-256 stands last among the fingerprints."""

    ice_parameters: IceParameters
    ice_candidates: list[IceCandidate]
    dtls_parameters: DtlsParameters


class TransportConnected(Result, frozen=True):
    role: Literal["client", "server"]


class IceRestarted(Result, frozen=True):
    ice_parameters: IceParameters


class Produced(Result, frozen=True):
    pass


class Consumed(Result, frozen=True):
    """`effective_profile` is the layer that is sent at first, before any `ProfileChanged`."""

    effective_profile: EffectiveProfile


class Stats(Result, frozen=True):
    stats: list[dict[str, Any]]


class Failed(Result, frozen=True):
    """The request failed. `code` is one of `shared.errors`; `reason` is for people."""

    code: int
    reason: str


AnyResult: TypeAlias = TransportCreated | TransportConnected | IceRestarted | Produced | Consumed | Stats | Failed


# --- orders -------------------------------------------------------------------------------------------------


class Order(Wire, frozen=True, tag_field="do", tag=lambda name: name[0].lower() + name[1:]):
    """Base of the orders. `object` is an engine id, `v` the number of the commit that carries the order."""

    object: EngineId
    v: int


class Close(Order, frozen=True):
    """Closes the object and everything on it (a transport's producers and consumers, a producer's consumers).

    A node remembers the ids it closed, so that a late request cannot bring one back.
    """

    kind: ObjectKind


class Pause(Order, frozen=True):
    kind: Literal["producer", "consumer"]


class Resume(Order, frozen=True):
    kind: Literal["producer", "consumer"]


class SetPreferredProfile(Order, frozen=True):
    """Sets the preferred profile of a consumer; `default` is the highest layer."""

    profile: Profile


class RequestKeyFrame(Order, frozen=True):
    """Asks the producer of a consumer for a key frame."""


class SetMaxIncomingBitrate(Order, frozen=True):
    """Limits what a transport may receive, in bits per second; 0 means no limit."""

    bitrate: Annotated[int, Meta(ge=0)]


AnyOrder: TypeAlias = Close | Pause | Resume | SetPreferredProfile | RequestKeyFrame | SetMaxIncomingBitrate


# --- batches ------------------------------------------------------------------------------------------------


class Command(Struct, frozen=True, array_like=True):
    """One request or order; a request's `n` is the number its result will carry, an order's is 0."""

    n: int
    body: AnyRequest | AnyOrder


class Commands(Struct, frozen=True):
    """Commands to a node, carried out in the order listed: exchange `media`, routing key the node's id.

    `reply_to` is the routing key of the commanding worker's private queue, on the same exchange.
    """

    reply_to: str
    commands: list[Command]


class Answer(Struct, frozen=True, array_like=True):
    n: int
    result: AnyResult


class Results(Struct, frozen=True):
    """Results to a room worker: exchange `media`, routing key the commands' `reply_to`."""

    node: str
    answers: list[Answer]


# --- events -------------------------------------------------------------------------------------------------


class Event(Wire, frozen=True, tag_field="event", tag=lambda name: name[0].lower() + name[1:]):
    """Base of what the engine reports by itself, inside `bus.MediaEvent`. `object` is an engine id."""

    object: EngineId


class ProfileChanged(Event, frozen=True):
    """A consumer's effective profile (§consumerEffectiveProfileChanged)."""

    profile: EffectiveProfile


class IceStateChanged(Event, frozen=True):
    state: str


class DtlsStateChanged(Event, frozen=True):
    state: str


class Score(Event, frozen=True):
    """A producer's or consumer's score as the engine gives it."""

    score: Any = None


class RouterClosed(Event, frozen=True):
    """The engine of this router has died or was closed: the router and everything on it no longer exist.

    `engine_died`: the engine ended by itself, while the node goes on. `other_suspects` is then the number of other
    rooms on the engine under which at least as many engines had died before.
    """

    reason: str
    engine_died: bool = False
    other_suspects: int = 0


AnyEvent: TypeAlias = ProfileChanged | IceStateChanged | DtlsStateChanged | Score | RouterClosed


def wire_name(kind: type[Request | Order]) -> str:
    """Returns the name of a command on the wire: `createTransport`, `pause`."""
    return str(kind.__struct_config__.tag)


encode = msgspec.json.Encoder().encode
decode_commands = msgspec.json.Decoder(Commands).decode
decode_results = msgspec.json.Decoder(Results).decode
decode_event = msgspec.json.Decoder(AnyEvent).decode
encode_event = encode
