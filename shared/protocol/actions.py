"""Defines the calls of the server API, as they travel to the room worker.

Calls travel as `bus.Call` through the room's partition like a client's messages, so they are ordered with them,
committed with their effect, and carried out once however often they arrive: a call's key identifies it.

`appData` and `data` are any JSON value, passed on unparsed. Ids are the client's own (transports, producers) or the
room's (consumers); `peer` is a peer's name. In docstrings `→` precedes the answer, or the notifications that follow.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from shared.protocol.client import AppData, Name, ObjectId
from shared.protocol.decoding import check_size, decode_json
from shared.protocol.rtp import Kind, Parameters, Profile, Wire
from shared.protocol.whole_numbers import WholeNumberDecoder

Bitrate = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
"""Bits per second, in 32 bits as in the engine."""


class Action(Wire, frozen=True, tag_field="do", tag=lambda name: name[0].lower() + name[1:]):
    """Base of the calls."""


# --- reading --------------------------------------------------------------------------------------------------


class InspectRoom(Action, frozen=True):
    """→ `RoomView`"""


class InspectPeer(Action, frozen=True):
    """→ `PeerView`"""

    peer: Name


# --- the room -------------------------------------------------------------------------------------------------


class RoomCodec(Wire, frozen=True):
    """A codec of a room, most preferred first; of mediasoup's list: opus, VP8, VP9, H264, PCMU, …"""

    kind: Kind
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    clock_rate: Annotated[int, Meta(gt=0, le=0xFFFF_FFFF)]
    channels: Annotated[int, Meta(ge=1, le=255)] | None = None
    parameters: Parameters = {}


class RoomLimits(Wire, frozen=True):
    """Limits of one room. None: the cluster's default (settings)."""

    peers: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    transports_per_peer: Annotated[int, Meta(ge=1, le=1000)] | None = None
    producers_per_peer: Annotated[int, Meta(ge=1, le=1000)] | None = None
    max_incoming_bitrate: Bitrate | None = None


class CreateRoom(Action, frozen=True):
    """→ `RoomView`. A room that exists with other codecs or limits is a conflict (409).

    A created room stays for `idle_seconds` after its last session has closed.
    """

    codecs: Annotated[list[RoomCodec], Meta(min_length=1, max_length=32)] | None = None
    limits: RoomLimits = RoomLimits()
    idle_seconds: Annotated[int, Meta(ge=0, le=7 * 86400)] = 300
    app_data: AppData = UNSET


class CloseRoom(Action, frozen=True):
    """→ closed for every peer; every socket is closed with a code that forbids a reconnect."""

    app_data: AppData = UNSET


# --- its objects ----------------------------------------------------------------------------------------------


class ClosePeer(Action, frozen=True):
    """→ closed for the peer, whose socket is closed for good, and peerClosed for the others"""

    peer: Name
    app_data: AppData = UNSET


class CloseTransport(Action, frozen=True):
    """→ transportClosed"""

    peer: Name
    id: ObjectId
    app_data: AppData = UNSET


class SetMaxBitrate(Action, frozen=True):
    """Limits what a sending transport may bring, bits per second; 0: no limit."""

    peer: Name
    id: ObjectId
    bitrate: Bitrate


class PauseProducer(Action, frozen=True):
    """→ producerPaused, and consumerPaused for the others"""

    peer: Name
    id: ObjectId
    app_data: AppData = UNSET


class ResumeProducer(Action, frozen=True):
    peer: Name
    id: ObjectId
    app_data: AppData = UNSET


class CloseProducer(Action, frozen=True):
    """→ producerClosed, and consumerClosed for the others"""

    peer: Name
    id: ObjectId
    app_data: AppData = UNSET


class PauseConsumer(Action, frozen=True):
    """→ consumerPaused for its peer"""

    peer: Name
    id: ObjectId
    app_data: AppData = UNSET


class ResumeConsumer(Action, frozen=True):
    peer: Name
    id: ObjectId
    app_data: AppData = UNSET


class SetConsumerProfile(Action, frozen=True):
    """→ consumerPreferredProfileSet"""

    peer: Name
    id: ObjectId
    profile: Profile


class RequestKeyFrame(Action, frozen=True):
    peer: Name
    id: ObjectId


class SendMessage(Action, frozen=True):
    """The notification `message` {data} to one peer, or to all of the room."""

    data: Raw
    peer: Name | None = None


AnyAction: TypeAlias = (
    InspectRoom
    | InspectPeer
    | CreateRoom
    | CloseRoom
    | ClosePeer
    | CloseTransport
    | SetMaxBitrate
    | PauseProducer
    | ResumeProducer
    | CloseProducer
    | PauseConsumer
    | ResumeConsumer
    | SetConsumerProfile
    | RequestKeyFrame
    | SendMessage
)

READ_ACTIONS = (InspectRoom, InspectPeer)


# --- what is answered -----------------------------------------------------------------------------------------


class TransportView(Wire, frozen=True, omit_defaults=False):
    id: int
    direction: Literal["send", "recv"]
    connected: bool
    app_data: AppData = UNSET


class ProducerView(Wire, frozen=True, omit_defaults=False):
    """`consumer_id` is the id its consumers have, for every other peer."""

    id: int
    consumer_id: int
    kind: Kind
    transport_id: int
    locally_paused: bool
    remotely_paused: bool
    profiles: list[Profile]
    app_data: AppData = UNSET


class ConsumerView(Wire, frozen=True, omit_defaults=False):
    """`transport_id` is null while the consumer is not enabled."""

    id: int
    kind: Kind
    source_peer: str
    transport_id: int | None
    locally_paused: bool
    remotely_paused: bool
    source_paused: bool
    preferred_profile: Profile
    effective_profile: str | None


class PeerView(Wire, frozen=True, omit_defaults=False):
    name: str
    gateway: str
    spy: bool
    transports: list[TransportView]
    producers: list[ProducerView]
    consumers: list[ConsumerView]
    app_data: AppData = UNSET


class PeerSummary(Wire, frozen=True, omit_defaults=False):
    name: str
    spy: bool
    transports: int
    producers: int
    app_data: AppData = UNSET


class RoomView(Wire, frozen=True, omit_defaults=False):
    """`connections` counts open sessions; those of them that have joined are `peers`.

    `media_refused_until` is there if media engines died of the room: the time (ms since the epoch) until which it is
    placed on no media node.
    """

    name: str
    connections: int
    peers: list[PeerSummary]
    media_node: str | None
    codecs: list[str]
    limits: RoomLimits
    app_data: AppData = UNSET
    media_refused_until: int | UnsetType = UNSET


class Done(Wire, frozen=True):
    """The answer to a call that returns nothing."""


AnyAnswer: TypeAlias = RoomView | PeerView | Done

encode = msgspec.json.Encoder().encode
_decoder = WholeNumberDecoder[AnyAction](AnyAction)


def decode(action: bytes) -> AnyAction:
    """Decodes an action. Raises `BadPayload` or `TooLarge`, whose reason names the field."""
    check_size(action, "appData", "data", name="action")
    return decode_json(_decoder, action, "action")
