"""Defines every operation of the server API, and makes actions from requests.

Fields that are not in the path come from the body; the action that they make checks both.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.protocol.handshake import NAME_BYTES, valid_name
from shared.errors import BadPayload, cut
from shared.protocol import actions
from shared.protocol.decoding import DEPTH_LIMIT, explain, is_too_deep
from shared.protocol.rtp import Wire

PAGE_LIMIT: Final = 1000
PAGE_DEFAULT: Final = 100

_DIGITS = len(str(2**53))
_PARAMETER = re.compile(r"{(\w+)}")
_encode = msgspec.json.encode


class RoomEntry(Wire, frozen=True, omit_defaults=False):
    """A room in a list."""

    name: str


class RoomList(Wire, frozen=True, omit_defaults=False):
    """A page of the list of rooms. `next` is the value of `after` for the following page; null on the last one."""

    rooms: list[RoomEntry]
    next: str | None


class ProcessView(Wire, frozen=True, omit_defaults=False):
    """A process of the cluster. `alive` is false once its heartbeat has stopped. `info` is what it reports."""

    id: str
    alive: bool
    info: dict[str, Any]


class ClusterStatus(Wire, frozen=True, omit_defaults=False):
    """The processes of the cluster by role."""

    gateways: list[ProcessView]
    workers: list[ProcessView]
    nodes: list[ProcessView]


class Failure(Wire, frozen=True, omit_defaults=False):
    """The body of an error: `code` is the HTTP status, `reason` is for people and names the field."""

    code: int
    reason: str


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation of the API. The gateway itself answers one without `action`.

    `answer` is the type of a 200's JSON.
    """

    name: str
    method: str
    path: str
    summary: str
    action: type[actions.Action] | None = None
    answer: type[Wire] = actions.Done
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def parameters(self) -> list[str]:
        """The names of the path's parameters."""
        return _PARAMETER.findall(self.path)

    @property
    def changes(self) -> bool:
        """Whether the operation may change the room, so that it takes an Idempotency-Key."""
        return self.action is not None and not issubclass(self.action, actions.READ_ACTIONS)

    @cached_property
    def body(self) -> dict[str, bool]:
        """The fields of the request's JSON, and whether each is required."""
        if self.action is None:
            return {}
        fields = msgspec.structs.fields(self.action)
        return {
            f.encode_name: f.required for f in fields if f.encode_name not in self.parameters and f.name != "peer"
        }

    def read(self, path: Mapping[str, str], body: bytes) -> actions.AnyAction:
        """Returns the action that a request asks for. Raises `BadPayload`, naming the field.

        The room checks sizes.
        """
        assert self.action is not None
        fields = self._fields(body) if self.body else {}
        for name in self.parameters[1:]:
            fields[name] = _raw(name, path[name])
        fields["do"] = Raw(_encode(self.action.__struct_config__.tag))
        return actions.decode(_encode(fields))

    def _fields(self, body: bytes) -> dict[str, Raw]:
        fields = _object(body)
        for name in fields:
            if name not in self.body:
                known = ", ".join(self.body)
                raise BadPayload(f"{cut(name)}: unknown field; there are {known}")
        return fields


def _object(body: bytes) -> dict[str, Raw]:
    """Returns the fields of a body; an empty body has none.

    What is accepted may be sent to browsers (DELIVERY O6).
    """
    try:
        text = body.decode()
        fields: dict[str, Raw] = msgspec.json.decode(text or "{}", type=dict[str, Raw])
    except msgspec.ValidationError as invalid:
        raise BadPayload(f"body: {explain(invalid).partition(': ')[2]}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as broken:
        raise BadPayload(f"body: not valid JSON ({broken})") from None
    if is_too_deep(text):
        raise BadPayload(f"body: more than {DEPTH_LIMIT} levels deep")
    return fields


def _raw(name: str, text: str) -> Raw:
    """Returns a part of the path as JSON; an id that is no number stays text, which the action rejects."""
    is_number = name == "id" and text.isascii() and text.isdigit() and len(text) <= _DIGITS
    return Raw(_encode(int(text) if is_number else text))


def check_name(field: str, name: str) -> str:
    """Returns the name of a room or peer. Raises `BadPayload` if it is invalid (DELIVERY S1)."""
    if not valid_name(name):
        raise BadPayload(f"{field}: expected 1 to {NAME_BYTES} bytes of UTF-8 without control characters")
    return name


_ROOM = "/v1/rooms/{room}"
_PEER = _ROOM + "/peers/{peer}"
_TRANSPORT = _PEER + "/transports/{id}"
_PRODUCER = _PEER + "/producers/{id}"
_CONSUMER = _PEER + "/consumers/{id}"

LIST_ROOMS: Final = Operation(
    "listRooms",
    "GET",
    "/v1/rooms",
    "All rooms, page by page; a room that exists throughout is on exactly one page.",
    answer=RoomList,
    query={
        "limit": {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": PAGE_DEFAULT},
        "after": {"type": "string", "description": "`next` of the page before"},
    },
)
STATUS: Final = Operation(
    "status", "GET", "/v1/status", "The cluster's gateways, room workers and media nodes.", answer=ClusterStatus
)

OPERATIONS: Final = (
    LIST_ROOMS,
    Operation(
        "createRoom",
        "PUT",
        _ROOM,
        "Creates a room, or returns the existing one.",
        actions.CreateRoom,
        actions.RoomView,
    ),
    Operation("inspectRoom", "GET", _ROOM, "A room and its peers.", actions.InspectRoom, actions.RoomView),
    Operation("closeRoom", "DELETE", _ROOM, "Closes a room: all its peers get `closed`.", actions.CloseRoom),
    Operation(
        "sendToRoom",
        "POST",
        _ROOM + "/messages",
        "Sends the notification `message` to all peers of a room.",
        actions.SendMessage,
    ),
    Operation(
        "inspectPeer",
        "GET",
        _PEER,
        "A peer and its transports, producers and consumers.",
        actions.InspectPeer,
        actions.PeerView,
    ),
    Operation("closePeer", "DELETE", _PEER, "Closes a peer, which gets `closed`.", actions.ClosePeer),
    Operation(
        "sendToPeer",
        "POST",
        _PEER + "/messages",
        "Sends the notification `message` to one peer.",
        actions.SendMessage,
    ),
    Operation(
        "closeTransport", "DELETE", _TRANSPORT, "Closes a transport: `transportClosed`.", actions.CloseTransport
    ),
    Operation(
        "setMaxBitrate",
        "PUT",
        _TRANSPORT + "/max-bitrate",
        "Limits the bitrate that a peer may send.",
        actions.SetMaxBitrate,
    ),
    Operation(
        "pauseProducer", "POST", _PRODUCER + "/pause", "Pauses a producer: `producerPaused`.", actions.PauseProducer
    ),
    Operation(
        "resumeProducer",
        "POST",
        _PRODUCER + "/resume",
        "Resumes a producer: `producerResumed`.",
        actions.ResumeProducer,
    ),
    Operation("closeProducer", "DELETE", _PRODUCER, "Closes a producer: `producerClosed`.", actions.CloseProducer),
    Operation(
        "pauseConsumer", "POST", _CONSUMER + "/pause", "Pauses a consumer: `consumerPaused`.", actions.PauseConsumer
    ),
    Operation(
        "resumeConsumer",
        "POST",
        _CONSUMER + "/resume",
        "Resumes a consumer: `consumerResumed`.",
        actions.ResumeConsumer,
    ),
    Operation(
        "setConsumerProfile",
        "PUT",
        _CONSUMER + "/profile",
        "Sets a consumer's preferred profile: `consumerPreferredProfileSet`.",
        actions.SetConsumerProfile,
    ),
    Operation(
        "requestKeyFrame",
        "POST",
        _CONSUMER + "/key-frame",
        "Asks the consumer's producer for a key frame.",
        actions.RequestKeyFrame,
    ),
    STATUS,
)
