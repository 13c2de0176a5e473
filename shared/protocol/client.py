"""Defines the messages between clients and server that the specification has, which travel inside protoo frames.

A class is named after its message: `CreateTransport` is §createTransport.

Decoders take raw JSON and raise `errors.BadPayload` whose reason names the field. Unknown fields are ignored, and so
is `target`, which some messages of the specification lack: the method decides. `appData` is any JSON value and is
never parsed; an absent one is `UNSET`. What is too large is refused with `errors.TooLarge`.
"""

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from shared.protocol.decoding import check_size, decode_json
from shared.protocol.rtp import (
    DtlsParameters,
    EffectiveProfile,
    IceCandidate,
    IceParameters,
    Kind,
    Profile,
    RtpCapabilities,
    RtpParameters,
    Wire,
    check_values,
)
from shared.protocol.whole_numbers import WholeNumberDecoder

REQUEST: Final = "mediasoup-request"
NOTIFICATION: Final = "mediasoup-notification"
MESSAGE: Final = "message"
SESSION: Final = "session"

ObjectId = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
AppData: TypeAlias = Raw | UnsetType


def copy_app_data(app_data: AppData) -> AppData:
    """Returns a copy that may outlive the frame it came in (a `Raw` holds on to all of its frame)."""
    return app_data.copy() if isinstance(app_data, Raw) else app_data


# --- from client to server ------------------------------------------------------------------------------------


class FromClient(Wire, frozen=True, tag_field="method", tag=lambda name: name[0].lower() + name[1:]):
    """Base of the mediasoup requests and notifications that clients send."""


class QueryRoom(FromClient, frozen=True):
    pass


class Join(FromClient, frozen=True):
    peer_name: Name
    rtp_capabilities: RtpCapabilities
    spy: bool = False
    app_data: AppData = UNSET


class Leave(FromClient, frozen=True):
    app_data: AppData = UNSET


class TransportOptions(Wire, frozen=True):
    udp: bool = True
    tcp: bool = True
    prefer_udp: bool = False
    prefer_tcp: bool = False


class CreateTransport(FromClient, frozen=True):
    id: ObjectId
    direction: Literal["send", "recv"]
    options: TransportOptions | None = None
    dtls_parameters: DtlsParameters | None = None
    app_data: AppData = UNSET


class UpdateTransport(FromClient, frozen=True):
    id: ObjectId
    dtls_parameters: DtlsParameters | None = None


class RestartTransport(FromClient, frozen=True):
    id: ObjectId


class CloseTransport(FromClient, frozen=True):
    id: ObjectId
    app_data: AppData = UNSET


class EnableTransportStats(FromClient, frozen=True):
    id: ObjectId
    interval: float = 1000


class DisableTransportStats(FromClient, frozen=True):
    id: ObjectId


class CreateProducer(FromClient, frozen=True):
    id: ObjectId
    kind: Kind
    transport_id: ObjectId
    rtp_parameters: RtpParameters
    paused: bool = False
    app_data: AppData = UNSET


class UpdateProducer(FromClient, frozen=True):
    id: ObjectId
    rtp_parameters: RtpParameters


class PauseProducer(FromClient, frozen=True):
    id: ObjectId
    app_data: AppData = UNSET


class ResumeProducer(FromClient, frozen=True):
    id: ObjectId
    app_data: AppData = UNSET


class CloseProducer(FromClient, frozen=True):
    id: ObjectId
    app_data: AppData = UNSET


class EnableProducerStats(FromClient, frozen=True):
    id: ObjectId
    interval: float = 1000


class DisableProducerStats(FromClient, frozen=True):
    id: ObjectId


class EnableConsumer(FromClient, frozen=True):
    id: ObjectId
    transport_id: ObjectId
    paused: bool = False
    preferred_profile: Profile | None = None


class PauseConsumer(FromClient, frozen=True):
    id: ObjectId
    app_data: AppData = UNSET


class ResumeConsumer(FromClient, frozen=True):
    id: ObjectId
    app_data: AppData = UNSET


class SetConsumerPreferredProfile(FromClient, frozen=True):
    id: ObjectId
    profile: Profile


class EnableConsumerStats(FromClient, frozen=True):
    id: ObjectId
    interval: float = 1000


class DisableConsumerStats(FromClient, frozen=True):
    id: ObjectId


Request: TypeAlias = QueryRoom | Join | CreateTransport | RestartTransport | CreateProducer | EnableConsumer
Notification: TypeAlias = (
    Leave
    | UpdateTransport
    | CloseTransport
    | EnableTransportStats
    | DisableTransportStats
    | UpdateProducer
    | PauseProducer
    | ResumeProducer
    | CloseProducer
    | EnableProducerStats
    | DisableProducerStats
    | PauseConsumer
    | ResumeConsumer
    | SetConsumerPreferredProfile
    | EnableConsumerStats
    | DisableConsumerStats
)
PeerMessage: TypeAlias = CreateTransport | RestartTransport | CreateProducer | EnableConsumer | Notification
"""A message that only a joined peer may send."""


class Message(Wire, frozen=True):
    """The data of a protoo `message`: for peer `to`, or for all others."""

    data: Raw
    to: Name | None = None


def method_of(kind: type[FromClient | Message]) -> str:
    """Returns the protocol's name for a kind of message: `createTransport`, `message`."""
    return str(kind.__struct_config__.tag or MESSAGE)


KIND_BY_METHOD: Final[dict[str, type[FromClient]]] = {method_of(kind): kind for kind in FromClient.__subclasses__()}

_message_decoder = msgspec.json.Decoder(Message)
_request_decoder = WholeNumberDecoder[Request](Request)
_notification_decoder = WholeNumberDecoder[Notification](Notification)


def decode_request(data: bytes) -> Request:
    check_size(data, "appData")
    decoded = decode_json(_request_decoder, data)
    if isinstance(decoded, Join):
        check_values("rtpCapabilities", decoded.rtp_capabilities)
    elif isinstance(decoded, CreateProducer):
        check_values("rtpParameters", decoded.rtp_parameters)
    return decoded


def decode_notification(data: bytes) -> Notification:
    check_size(data, "appData")
    decoded = decode_json(_notification_decoder, data)
    if isinstance(decoded, UpdateProducer):
        check_values("rtpParameters", decoded.rtp_parameters)
    return decoded


def decode_message(data: bytes) -> Message:
    return decode_json(_message_decoder, data)


# --- from server to client ------------------------------------------------------------------------------------


class ToClient(Wire, frozen=True, kw_only=True, tag_field="method", tag=lambda name: name[0].lower() + name[1:]):
    """Base of the notifications to clients; `protoo.notification_frame` adds `target` and `notification`."""


class ConsumerInfo(Wire, frozen=True, omit_defaults=False):
    """A consumer as `join`, `newPeer` and `newConsumer` describe it. `effective_profile` null: none yet."""

    id: int
    kind: Kind
    rtp_parameters: RtpParameters
    paused: bool
    peer_name: str
    preferred_profile: Profile = "default"
    effective_profile: EffectiveProfile | None = None
    app_data: AppData = UNSET


class PeerInfo(Wire, frozen=True, omit_defaults=False):
    name: str
    consumers: list[ConsumerInfo]
    app_data: AppData = UNSET


class Closed(ToClient, frozen=True):
    app_data: AppData = UNSET


class TransportClosed(ToClient, frozen=True):
    id: int
    app_data: AppData = UNSET


class TransportStats(ToClient, frozen=True):
    id: int
    stats: list[dict[str, Any]]


class ProducerPaused(ToClient, frozen=True):
    id: int
    app_data: AppData = UNSET


class ProducerResumed(ToClient, frozen=True):
    id: int
    app_data: AppData = UNSET


class ProducerClosed(ToClient, frozen=True):
    id: int
    app_data: AppData = UNSET


class ProducerStats(ToClient, frozen=True):
    id: int
    stats: list[dict[str, Any]]


class NewPeer(ToClient, frozen=True, omit_defaults=False):
    name: str
    consumers: list[ConsumerInfo] = []
    app_data: AppData = UNSET


class PeerClosed(ToClient, frozen=True):
    name: str
    app_data: AppData = UNSET


class NewConsumer(ToClient, frozen=True, omit_defaults=False):
    id: int
    kind: Kind
    peer_name: str
    rtp_parameters: RtpParameters
    paused: bool
    preferred_profile: Profile
    effective_profile: EffectiveProfile | None
    app_data: AppData = UNSET


class ConsumerClosed(ToClient, frozen=True):
    id: int
    peer_name: str


class ConsumerPaused(ToClient, frozen=True):
    id: int
    peer_name: str
    app_data: AppData = UNSET


class ConsumerResumed(ToClient, frozen=True):
    id: int
    peer_name: str
    app_data: AppData = UNSET


class ConsumerPreferredProfileSet(ToClient, frozen=True):
    id: int
    peer_name: str
    profile: Profile


class ConsumerEffectiveProfileChanged(ToClient, frozen=True):
    id: int
    peer_name: str
    profile: EffectiveProfile


class ConsumerStats(ToClient, frozen=True):
    id: int
    peer_name: str
    stats: list[dict[str, Any]]


# --- answers --------------------------------------------------------------------------------------------------


class RoomInfo(Wire, frozen=True, omit_defaults=False):
    """The answer to a request `queryRoom`."""

    rtp_capabilities: RtpCapabilities
    mandatory_codec_payload_types: list[int] = []


class Joined(Wire, frozen=True, omit_defaults=False):
    """The answer to a request `join`."""

    peers: list[PeerInfo]


class TransportInfo(Wire, frozen=True, omit_defaults=False):
    """The answer to a request `createTransport`."""

    ice_parameters: IceParameters
    ice_candidates: list[IceCandidate]
    dtls_parameters: DtlsParameters


class TransportRestarted(Wire, frozen=True):
    """The answer to a request `restartTransport`."""

    ice_parameters: IceParameters


class ConsumerEnabled(Wire, frozen=True, omit_defaults=False):
    """The answer to a request `enableConsumer`."""

    paused: bool
    preferred_profile: Profile
    effective_profile: EffectiveProfile | None


class Nothing(Wire, frozen=True):
    """An empty response."""


AnyAnswer: TypeAlias = RoomInfo | Joined | TransportInfo | TransportRestarted | ConsumerEnabled | Nothing
