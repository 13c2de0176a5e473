"""The limits that docs/reference/limits.md lists, with the constants and settings that hold them."""

from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

from msgspec import Meta

from gateway.api.server import BODIES_BYTES, BODY_BYTES, BODY_SECONDS, CONNECTIONS_LIMIT, REQUESTS_LIMIT
from gateway.bus import api_calls
from gateway.http import request
from gateway.http.connection import REQUEST_SECONDS, RESPONSE_SECONDS
from gateway.http.listener import KEPT_FILES
from gateway.protocol import session
from gateway.protocol.handshake import NAME_BYTES
from gateway.protocol.rate_limit import BYTES_BURST, OVER_RATE_SWEEPS
from gateway.websocket import hub
from gateway.websocket.budgets import STALL_SWEEPS
from gateway.websocket.connection import FRAME_BYTES, SHORT_FRAGMENT
from roomworker.core import engine_deaths, resumption
from roomworker.core.budget import MODEST_PART
from roomworker.core.fan_out import BURST_SECONDS, KEPT_SECONDS
from roomworker.core.journal import ANSWERED_CALLS_LIMIT, ANSWERS_BYTES_LIMIT, CLOSED_SESSIONS_LIMIT
from roomworker.core.stats import REPORTERS_LIMIT
from roomworker.core.told_app_data import PEER_PARTS, ROOM_PARTS
from roomworker.messaging.media_client import DEADLINE, SILENT_AFTER
from roomworker.partitions.memory_guard import ENDED_SHARE
from roomworker.storage.port import DEAD_LETTERS_KEPT, KEEP_CLOSED_S
from roomworker.storage.retention import BEYOND_GRACE, LONGEST
from shared.aio.http_connections import FIRST_REQUEST_SECONDS
from shared.errors import TEXT_CHARS
from shared.protocol.decoding import CONTAINERS_LIMIT, DEPTH_LIMIT, SIGNALING_BYTES
from shared.protocol.rtp import VALUE_BYTES, DtlsParameters, RtpCapabilities, RtpCodec, RtpParameters
from shared.settings import GatewaySettings, WorkerSettings

_MINUTE: Final = 60

Limit = tuple[str, str, str]


def limits() -> Iterator[Limit]:
    """Yields for each limit what it limits, its value with the setting, and what happens above it."""
    yield from _addresses()
    yield from _messages()
    yield from _connections()
    yield from _rooms()
    yield from _server_api()
    yield from _kept()


def _messages() -> Iterator[Limit]:
    rate, burst = _default(GatewaySettings, "message_rate"), _default(GatewaySettings, "message_burst")
    yield "name of a room or peer", f"{NAME_BYTES} bytes", "the connection is closed with 4000"
    yield "message", f"{size(_default(GatewaySettings, 'frame_limit'))} (`PLENARY_FRAME_LIMIT`)", "answered 413"
    yield "message, in any case", size(FRAME_BYTES), "the connection is closed with 1009"
    yield "depth of JSON", f"{DEPTH_LIMIT} levels", "answered 400"
    yield (
        "arrays and objects of a message",
        f"{CONTAINERS_LIMIT:,}, counting brackets in strings",
        "answered 413",
    )
    yield (
        "messages of one connection",
        f"{rate:g} a second, {burst} at once (`PLENARY_MESSAGE_RATE`, `PLENARY_MESSAGE_BURST`)",
        "requests are answered 429, all else is dropped. Beyond as many refused messages the socket is read more"
        f" slowly; after {OVER_RATE_SWEEPS * hub.SWEEP_EVERY:g} s it is not read any more, and closed with 1008",
    )
    yield (
        f"pings, pongs, and later fragments below {size(SHORT_FRAGMENT)}",
        f"{rate:g} a second, {burst} at once, together with messages",
        "they are dropped (fragments are not), and as above",
    )


def _connections() -> Iterator[Limit]:
    byte_rate = _default(GatewaySettings, "byte_rate")
    yield (
        "bytes of one connection",
        f"{size(byte_rate)} a second, {size(BYTES_BURST * byte_rate)} at once (`PLENARY_BYTE_RATE`)",
        "the socket is read more slowly",
    )
    yield (
        "a message that has not ended",
        f"{STALL_SWEEPS * hub.SWEEP_EVERY:g} s without progress",
        "the connection is closed with 4003",
    )
    yield (
        "all messages of one gateway that have not ended",
        f"{size(_default(GatewaySettings, 'unfinished_limit'))} (`PLENARY_UNFINISHED_LIMIT`)",
        "the connections with the largest are closed with 1013",
    )
    yield (
        "unapplied input of one connection",
        f"{_default(GatewaySettings, 'unapplied_limit')} messages (`PLENARY_UNAPPLIED_LIMIT`)"
        f" or {size(session.InputLimits().size)}",
        "its socket is not read until some are applied",
    )
    yield "unapplied input of one gateway", size(hub.UNAPPLIED_BYTES_LIMIT), "new connections are closed with 1013"
    yield (
        "unsent output of one connection",
        f"{size(_default(GatewaySettings, 'send_buffer'))} (`PLENARY_SEND_BUFFER`) and one larger message",
        "it is closed with 4003",
    )
    yield (
        "unsent output of one gateway",
        f"{size(_default(GatewaySettings, 'unsent_limit'))} (`PLENARY_UNSENT_LIMIT`)",
        "the connections with the most are closed with 4003",
    )


def _addresses() -> Iterator[Limit]:
    yield (
        "head of an HTTP request",
        f"{size(request.HEAD_BYTES)}, {request.FIELDS_LIMIT} headers, {request.TARGET_BYTES} bytes of target, "
        f"{REQUEST_SECONDS:g} s",
        "answered 431, 414 or 408",
    )
    yield "time to take a page", f"{RESPONSE_SECONDS:g} s", "the connection is cut off"
    yield (
        "connections of one gateway",
        f"`PLENARY_CONNECTIONS`, or the open files of the process less {KEPT_FILES}",
        "answered 503",
    )
    yield (
        "new connections of one gateway",
        f"{_default(GatewaySettings, 'connection_rate'):g} a second (`PLENARY_CONNECTION_RATE`)",
        "answered 503",
    )
    yield (
        "connections, new ones a second, and rooms of one address",
        "0, which is none, until `PLENARY_CONNECTIONS_PER_IP`, `PLENARY_CONNECTION_RATE_PER_IP` and "
        "`PLENARY_ROOMS_PER_IP` are set",
        "answered 429",
    )


def _rooms() -> Iterator[Limit]:
    def setting(name: str, unit: str = "") -> str:
        return f"{_default(WorkerSettings, name)}{unit} (`PLENARY_{name.upper()}`)"

    yield "peers of a room", setting("max_peers"), "`join` is answered 429"
    yield "transports of a peer", setting("max_transports"), "`createTransport` is answered 429"
    yield "producers of a peer", setting("max_producers"), "`createProducer` is answered 429"
    yield from _rtp()
    yield (
        "`appData`",
        f"{size(_default(WorkerSettings, 'app_data_limit'))} (`PLENARY_APP_DATA_LIMIT`)",
        "answered 413",
    )
    app_data = _default(WorkerSettings, "app_data_limit")
    yield (
        "`appData` of a peer and its producers",
        f"{PEER_PARTS} times as much",
        "answered 413",
    )
    yield (
        "`appData` of all peers of a room and their producers",
        f"{size(ROOM_PARTS * app_data)}",
        f"what would add to it is answered 429, unless the peer and its producers have at most {size(app_data // 4)}",
    )
    yield (
        "data of a message between peers",
        f"{size(_default(WorkerSettings, 'message_limit'))} (`PLENARY_MESSAGE_LIMIT`)",
        "answered 413",
    )
    yield from _bytes()
    yield (
        "media engines that die of a room",
        f"{engine_deaths.GUILTY_DEATHS} in {engine_deaths.GUILTY_WITHIN_MS // 1000} s, if no other room was as"
        f" suspect at the last {engine_deaths.GUILTY_ALONE}",
        f"`createTransport` is answered 503 for {engine_deaths.REFUSED_MS // 1000 // _MINUTE} minutes",
    )
    yield (
        "one command to a media node",
        f"{DEADLINE:g} s, or {SILENT_AFTER:g} s without any sign of the node",
        "answered 503",
    )


def _rtp() -> Iterator[Limit]:
    """Yields the limits of what a client says of its media, which those of browsers do not come near."""
    yield "request or notification without `appData`", size(SIGNALING_BYTES), "answered 413"
    yield "codecs of capabilities or a producer", str(_longest(RtpParameters, "codecs")), "answered 400"
    yield (
        "header extensions of capabilities or a producer",
        str(_longest(RtpParameters, "header_extensions")),
        "answered 400",
    )
    yield "encodings of a producer", str(_longest(RtpParameters, "encodings")), "answered 400"
    yield "parameters of a codec or header extension", str(_longest(RtpCodec, "parameters")), "answered 400"
    yield "`rtcpFeedback` of a codec", str(_longest(RtpCodec, "rtcp_feedback")), "answered 400"
    yield "`fecMechanisms`", str(_longest(RtpCapabilities, "fec_mechanisms")), "answered 400"
    yield "one parameter's value, or FEC mechanism", f"{VALUE_BYTES} bytes", "answered 413"
    yield "fingerprints of a transport", str(_longest(DtlsParameters, "fingerprints")), "answered 400"
    yield "any other text", f"{_longest(RtpCodec, 'name')} characters", "answered 400"
    yield "client's text in an error or in the log", f"{TEXT_CHARS} characters", "the rest is replaced by `…`"


def _bytes() -> Iterator[Limit]:
    """Yields the limits of the bytes that rooms take, and send."""

    def setting(name: str, unit: str = "") -> str:
        return f"{size(_default(WorkerSettings, name))}{unit} (`PLENARY_{name.upper()}`)"

    yield (
        "a peer and its objects, as counted",
        setting("peer_bytes", f"; 1/{MODEST_PART} of it while half of the room's or the worker's bytes are taken"),
        "what would add to them is answered 413, or as below",
    )
    yield (
        "a room, as counted",
        setting("room_bytes"),
        "what would add to it is answered 429, new connections are closed with 1013; a room that takes so many in"
        " Redis is not loaded",
    )
    yield (
        "all rooms of a room worker, as counted",
        setting("worker_bytes"),
        "what would add to them is answered 503, new connections are closed with 1013",
    )
    yield (
        "what one peer causes to be sent, times receivers",
        setting("peer_fan_out", f" a second, of {BURST_SECONDS} s at once"),
        "its messages, and requests that make something, are answered 429",
    )
    yield (
        "what a room's messages cause to be sent, times receivers",
        setting("room_fan_out", f" a second, of {BURST_SECONDS} s at once"),
        "messages between its peers are answered 429; beyond three times as much at once all requests that make"
        " something",
    )
    yield (
        "messages between peers of a room that Redis keeps",
        setting("room_stream_bytes", f" in {KEPT_SECONDS} s"),
        "further ones are answered 429",
    )
    yield "objects of a peer that report stats", str(REPORTERS_LIMIT), "`enable…Stats` is refused with 429"


def _server_api() -> Iterator[Limit]:
    yield "body of a request to the server API", size(BODY_BYTES), "answered 413"
    yield "time for such a body", f"{BODY_SECONDS:g} s", "answered 408"
    yield "all such bodies of one gateway", size(BODIES_BYTES), "answered 503"
    yield "connections to the server API, for each gateway", f"{CONNECTIONS_LIMIT:,}", "the newest are cut off"
    yield "first request of a connection to the server API", f"{FIRST_REQUEST_SECONDS:g} s", "it is cut off"
    yield "requests to the server API at once, for each gateway", f"{REQUESTS_LIMIT:,}", "answered 503"
    yield "one call of the server API", f"{api_calls.CALL_TIMEOUT * hub.SWEEP_EVERY:g} s", "answered 503"
    yield "calls of the server API at once, for each gateway", f"{api_calls.WAITING_CALLS:,}", "answered 503"


def _kept() -> Iterator[Limit]:
    yield (
        "output kept for repetition",
        f"`PLENARY_GRACE_SECONDS` and {BEYOND_GRACE:g} s; up to {LONGEST / _MINUTE:g}"
        " minutes while some of it may not have arrived because RabbitMQ was away",
        "the session ends with 4002 or 4001",
    )
    yield (
        "output of a resumable session without a connection",
        size(resumption.LOST_BYTES_LIMIT),
        "the session ends",
    )
    yield (
        "missed output that is sent again to one session",
        f"{size(_default(WorkerSettings, 'replay_limit'))} (`PLENARY_REPLAY_LIMIT`)",
        "the connection is closed with 4001",
    )
    yield (
        "closed sessions that a room remembers",
        f"{CLOSED_SESSIONS_LIMIT:,}, for {KEEP_CLOSED_S // _MINUTE} minutes",
        "the oldest are forgotten",
    )
    yield (
        "calls of the server API that a room remembers",
        f"{ANSWERED_CALLS_LIMIT:,} or {size(ANSWERS_BYTES_LIMIT)}, for {KEEP_CLOSED_S // _MINUTE} minutes",
        "the oldest are forgotten",
    )
    yield (
        "Redis' `maxmemory`",
        f"{_default(WorkerSettings, 'redis_trim_at'):.0%} (`PLENARY_REDIS_TRIM_AT`),"
        f" then {_default(WorkerSettings, 'redis_refuse_at'):.0%} (`PLENARY_REDIS_REFUSE_AT`)",
        "messages are kept for the grace only; then new connections are closed with 1013, requests that make a room"
        f" grow are answered 503, and rooms that take {ENDED_SHARE:.0%} of it or more are ended, the largest first",
    )
    yield "messages that were set aside", f"about {DEAD_LETTERS_KEPT:,}", "the oldest are deleted"


def size(number: int) -> str:
    """Formats bytes: `256 KiB`."""
    for unit, factor in (("MiB", 2**20), ("KiB", 2**10)):
        if number >= factor and number % factor == 0:
            return f"{number // factor} {unit}"
    return f"{number} bytes"


def _default(kind: type[GatewaySettings] | type[WorkerSettings], name: str) -> Any:
    return kind.model_fields[name].default


def _longest(kind: type, field: str) -> int:
    """Returns the greatest length of a text, list or dictionary of what a client says of its media."""
    _, meta = get_args(get_type_hints(kind, include_extras=True)[field])
    assert isinstance(meta, Meta)
    assert meta.max_length is not None
    return meta.max_length
