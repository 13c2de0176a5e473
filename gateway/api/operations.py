"""Every operation of the server API, and how a request becomes an action.

One line per operation: what is not in the path comes from the body, and both are checked as the action they make.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.protocol.frame_validation import DEPTH_LIMIT, nesting_depth
from gateway.protocol.handshake import NAME_BYTES, valid_name
from shared.errors import BadPayload, TooLarge
from shared.protocol import actions
from shared.protocol.decoding import explain
from shared.protocol.rtp import Wire

APP_DATA_BYTES: Final = 16 * 1024
PAGE_LIMIT: Final = 1000
PAGE_DEFAULT: Final = 100

_DIGITS = len(str(2**53))
_PARAMETER = re.compile(r"{(\w+)}")
_encode = msgspec.json.encode


class Listed(Wire, frozen=True, omit_defaults=False):
    """A room in a list; ask for it by its name to see more."""

    name: str


class RoomList(Wire, frozen=True, omit_defaults=False):
    """`next` is what to give as `after` for the following page; null: this is the last one."""

    rooms: list[Listed]
    next: str | None


class ProcessView(Wire, frozen=True, omit_defaults=False):
    """`alive` false: it has stopped beating. `info` is what it tells of itself."""

    id: str
    alive: bool
    info: dict[str, Any]


class ClusterStatus(Wire, frozen=True, omit_defaults=False):
    gateways: list[ProcessView]
    workers: list[ProcessView]
    nodes: list[ProcessView]


class Failure(Wire, frozen=True, omit_defaults=False):
    """`code` is the HTTP status once more; `reason` is for people and names the field."""

    code: int
    reason: str


@dataclass(frozen=True, eq=False)
class Operation:
    """`action` None: answered by the gateway itself. `answer` is what a 200 carries, as JSON."""

    name: str
    method: str
    path: str
    summary: str
    action: type[actions.Action] | None = None
    answer: type[Wire] = actions.Done
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def parameters(self) -> list[str]:
        """Names in the path."""
        return _PARAMETER.findall(self.path)

    @property
    def changes(self) -> bool:
        return self.action is not None and not issubclass(self.action, actions.READ_ACTIONS)

    @cached_property
    def body(self) -> dict[str, bool]:
        """Fields of the request's JSON, and whether each is required."""
        if self.action is None:
            return {}
        fields = msgspec.structs.fields(self.action)
        return {
            f.encode_name: f.required for f in fields if f.encode_name not in self.parameters and f.name != "peer"
        }

    def read(self, path: Mapping[str, str], body: bytes) -> actions.AnyAction:
        """The action asked for. Raises `BadPayload` and `TooLarge`, naming the field."""
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
                raise BadPayload(f"{name}: unknown field; there are {known}")
        if len(bytes(fields.get("appData", b""))) > APP_DATA_BYTES:
            raise TooLarge(f"appData: more than {APP_DATA_BYTES} bytes")
        return fields


def _object(body: bytes) -> dict[str, Raw]:
    """An empty body is an empty object. What is accepted is fit to be sent to a browser (DELIVERY O6)."""
    try:
        text = body.decode()
        fields: dict[str, Raw] = msgspec.json.decode(text or "{}", type=dict[str, Raw])
    except msgspec.ValidationError as invalid:
        raise BadPayload(f"body: {explain(invalid).partition(': ')[2]}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as broken:
        raise BadPayload(f"body: not valid JSON ({broken})") from None
    if text.count("{") + text.count("[") > DEPTH_LIMIT and nesting_depth(text) > DEPTH_LIMIT + 1:
        raise BadPayload(f"body: more than {DEPTH_LIMIT} levels deep")
    return fields


def _raw(name: str, text: str) -> Raw:
    """A part of the path as JSON; an id that is no number is left to be complained about."""
    is_number = name == "id" and text.isascii() and text.isdigit() and len(text) <= _DIGITS
    return Raw(_encode(int(text) if is_number else text))


def check_name(field: str, name: str) -> str:
    """Raises `BadPayload` for what can be no room's or peer's name (DELIVERY S1)."""
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
    "All rooms, page by page; one that lives from the first to the last page is in exactly one of them.",
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
        "createRoom", "PUT", _ROOM, "Makes a room, or finds it as it is.", actions.CreateRoom, actions.RoomView
    ),
    Operation("inspectRoom", "GET", _ROOM, "A room and who is in it.", actions.InspectRoom, actions.RoomView),
    Operation("closeRoom", "DELETE", _ROOM, "Sends everybody away: `closed`.", actions.CloseRoom),
    Operation(
        "sendToRoom", "POST", _ROOM + "/messages", "Notification `message` to all of a room.", actions.SendMessage
    ),
    Operation("inspectPeer", "GET", _PEER, "A peer and all it has.", actions.InspectPeer, actions.PeerView),
    Operation("closePeer", "DELETE", _PEER, "Sends a peer away: `closed`.", actions.ClosePeer),
    Operation("sendToPeer", "POST", _PEER + "/messages", "Notification `message` to one peer.", actions.SendMessage),
    Operation("closeTransport", "DELETE", _TRANSPORT, "→ `transportClosed`", actions.CloseTransport),
    Operation(
        "setMaxBitrate", "PUT", _TRANSPORT + "/max-bitrate", "What a peer may send at most.", actions.SetMaxBitrate
    ),
    Operation("pauseProducer", "POST", _PRODUCER + "/pause", "→ `producerPaused`", actions.PauseProducer),
    Operation("resumeProducer", "POST", _PRODUCER + "/resume", "→ `producerResumed`", actions.ResumeProducer),
    Operation("closeProducer", "DELETE", _PRODUCER, "→ `producerClosed`", actions.CloseProducer),
    Operation("pauseConsumer", "POST", _CONSUMER + "/pause", "→ `consumerPaused`", actions.PauseConsumer),
    Operation("resumeConsumer", "POST", _CONSUMER + "/resume", "→ `consumerResumed`", actions.ResumeConsumer),
    Operation(
        "setConsumerProfile",
        "PUT",
        _CONSUMER + "/profile",
        "→ `consumerPreferredProfileSet`",
        actions.SetConsumerProfile,
    ),
    Operation(
        "requestKeyFrame", "POST", _CONSUMER + "/key-frame", "Asks its sender for one.", actions.RequestKeyFrame
    ),
    STATUS,
)
