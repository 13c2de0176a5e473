"""Defines the messages between gateways and room workers.

Towards the worker: exchange `rooms`, routing key the room's partition. A body is a *batch*: when it was published,
the origin's id, then items, each length-prefixed and encoded by itself so that a bad one fails alone (DELIVERY I3)
and so that a gateway encodes an item once and can publish it again.

Towards the gateway: exchange `notify`, routing key `<gateway>.<connection>` of the first recipient; one
`ToGateway` names all recipients inside.

Numbers. A session's inputs are counted from 0 (its `Connect`) without gaps, its `Disconnect` included; a session's
outputs from 1. A sender keeps what it sent until the other end reports it applied or written, and sends again from
there (go-back-N), so that loss, repetition and reordering in between are harmless.

A resumable session (its `Connect` has a token) outlives its connections. Its inputs have the client's own numbers
(`cseq`), so the end of a connection is no input but a `ConnectionLost`, and `Resume` continues the session within
the grace.
"""

from collections.abc import Iterable, Iterator
from struct import Struct as Packing
from typing import Literal, TypeAlias
from zlib import crc32

import msgspec

_LENGTH = Packing("!I")
_TIME = Packing("!d")


def partition_of(room: str, partitions: int) -> int:
    """Returns the partition that a room belongs to, of as many as `partitions` says."""
    return crc32(room.encode()) % partitions


# --- towards the room worker ----------------------------------------------------------------------------------


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of everything that gateways and media nodes send to room workers."""


class Connect(Item, frozen=True, tag="connect"):
    """Input 0 of a new session: a socket was accepted for `peer`.

    Of two connections of one peer the one that arrives later stays (DELIVERY I7). `accepted` (ms since the epoch by
    the gateway's clock) is compared by workers of the version before only. `token` is the hash of the resume token,
    empty for a session that cannot be resumed.
    """

    room: str
    session: str
    connection: int
    peer: str
    accepted: int
    token: str = ""


class Input(Item, frozen=True, tag="input"):
    """One protoo request (`id` is its number) or notification (`id` is None) of a client, unchanged.

    `data` is the raw JSON of the frame's `data`: valid JSON in valid UTF-8, at most 64 levels deep.
    """

    room: str
    session: str
    connection: int
    n: int
    method: str
    id: int | None
    data: bytes


class RejectedInput(Item, frozen=True, tag="refused"):
    """A numbered frame that the gateway rejected. The room worker answers it with the error in turn (DELIVERY I2)."""

    room: str
    session: str
    connection: int
    n: int
    id: int | None
    code: int
    reason: str


class Disconnect(Item, frozen=True, tag="disconnect"):
    """The last input of a session: the socket of `connection` has closed."""

    room: str
    session: str
    connection: int
    n: int


class Resume(Item, frozen=True, tag="resume"):
    """Asks to continue a resumable session over a new connection. Not numbered; repeated until a `Link` answers.

    `token` is the hash of the resume token. Of two attempts the one with the higher number stays (DELIVERY I7). The
    client has every output up to `ack`.
    """

    room: str
    session: str
    connection: int
    token: str
    attempt: int
    ack: int


class ConnectionLost(Item, frozen=True, tag="lost"):
    """The socket of a resumable session has closed. Not numbered; repeated until a `Link` answers.

    `final`: the client closed it for good; else the session may be resumed within the grace.
    """

    room: str
    session: str
    connection: int
    final: bool = False


class Replay(Item, frozen=True, tag="replay"):
    """Asks for the session's outputs after number `after` again (DELIVERY O2). Not numbered."""

    room: str
    session: str
    connection: int
    after: int


class Call(Item, frozen=True, tag="call"):
    """A call of the server API: `action` is an `actions.AnyAction` as JSON.

    `key` (random, or the caller's Idempotency-Key) identifies the call: however often it arrives, it is carried out
    once and answered the same. The answer goes to gateway `reply_to` as a `CallAnswer` with number `n`.
    """

    room: str
    key: str
    reply_to: str
    n: int
    action: bytes


class MediaEvent(Item, frozen=True, tag="media"):
    """An engine event (`media.AnyEvent` as JSON), the `n`-th that `node` has published."""

    room: str
    incarnation: str
    epoch: int
    node: str
    n: int
    event: bytes


class Tick(Item, frozen=True, tag="tick"):
    """The time, for everything in the partition (DELIVERY T1); `n` counts up.

    `now` is the cluster's time, ms. `seconds` is the monotonic clock of the sender `boot`, an id that no other
    process ever had: differences within one boot id are exact. A worker of the version before sends no `boot`, and
    its wall clock as `now`.
    """

    n: int
    now: int
    boot: str = ""
    seconds: float = 0.0


class HeldRouter(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A router on a media node, with the room and placement that it was made for; `router` is its engine id."""

    room: str
    incarnation: str
    epoch: int
    router: str


class NodeReport(Item, frozen=True, tag="report"):
    """Lists all routers of this partition's rooms that `node` has (DELIVERY T3).

    `lost`: its command queue was lost since the last report, with the orders that were in it.
    """

    node: str
    routers: list[HeldRouter]
    lost: bool = False


AnyItem: TypeAlias = (
    Connect
    | Input
    | RejectedInput
    | Disconnect
    | Resume
    | ConnectionLost
    | Replay
    | Call
    | MediaEvent
    | Tick
    | NodeReport
)
SessionItem: TypeAlias = Connect | Input | RejectedInput | Disconnect
TransientItem: TypeAlias = Replay | Tick | NodeReport
"""An item that changes no room by itself: it is not redone if a commit fails."""

encode_item = msgspec.msgpack.Encoder().encode
decode_item = msgspec.msgpack.Decoder(AnyItem).decode


def encode_batch(origin: str, items: Iterable[bytes], now: float) -> bytes:
    """Returns a body made of encoded items.

    `origin` is the gateway's, node's or worker's id, `now` seconds since the epoch, to be shown only.
    """
    parts = [_TIME.pack(now)]
    pack = _LENGTH.pack
    name = origin.encode()
    parts.append(pack(len(name)))
    parts.append(name)
    for item in items:
        parts.append(pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def split_batch(body: bytes) -> tuple[str, Iterator[bytes]]:
    """Returns the origin of a batch and its items, still encoded. Raises `ValueError` for a truncated body."""
    if len(body) < _TIME.size:
        raise ValueError("empty batch")
    parts = _parts(body)
    try:
        origin = next(parts).decode()
    except StopIteration:
        raise ValueError("empty batch") from None
    return origin, parts


def published_at(body: bytes) -> float:
    """Returns the time of a batch's publish in seconds since the epoch, by its origin's clock, to be shown only.

    The result is 0.0 if the body is no batch.
    """
    return float(_TIME.unpack_from(body)[0]) if len(body) >= _TIME.size else 0.0


def _parts(body: bytes) -> Iterator[bytes]:
    at, end = _TIME.size, len(body)
    while at < end:
        start = at + 4
        if start > end:
            raise ValueError(f"batch: truncated length at byte {at}")
        (length,) = _LENGTH.unpack_from(body, at)
        at = start + length
        if at > end:
            raise ValueError(f"batch: truncated item at byte {start}")
        yield body[start:at]


# --- towards the gateway --------------------------------------------------------------------------------------


class Recipient(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One recipient of a message. `out` is its number in that session; 0: not numbered, to be carried out at once."""

    connection: int
    session: str
    out: int


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One frame for some connections of one gateway: `body` is a whole protoo frame, a JSON object.

    With `close` (a close code) the socket is closed instead, and `body` is the reason's text.
    """

    body: bytes
    to: list[Recipient]
    close: int = 0


class Applied(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The session's inputs up to `n` are committed, and its outputs up to `out` exist.

    A gateway that has not written `out` yet, and has nothing more coming, asks for a `Replay`. `again`: the worker
    saw a gap, and the gateway sends again what it keeps from `n`+1 on. `n` -1: the worker knows no such session; a
    gateway that no longer keeps its `Connect` closes the socket (`errors.SESSION_UNKNOWN`).
    """

    connection: int
    session: str
    n: int
    out: int
    again: bool = False


class Link(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state of a connection to a resumable session.

    `resumed`: the session continues over it; the client's next input is `n`+1, and a `Replay` gives the outputs
    after its `ack` up to `out`. `refused`: the session is closed, or the token is another, or the attempt is not the
    latest. `released`: the session no longer uses the connection, which was lost or superseded by another.
    """

    connection: int
    session: str
    state: Literal["resumed", "refused", "released"]
    n: int = 0
    out: int = 0


class CallAnswer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to a `Call`: `code` 200 with JSON as `body`, or an error's code with its reason as text.

    The answer is sent once the call is committed. A gateway without an answer publishes the `Call` again.
    """

    n: int
    code: int
    body: bytes


class ToGateway(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A batch for one gateway, to be carried out in the order of its fields: then no gap is seen where there is none.

    `sent` is when it was published, seconds since the epoch by the worker's clock, to be shown only; 0: unknown.
    """

    messages: list[Message]
    applied: list[Applied]
    answers: list[CallAnswer] = []
    links: list[Link] = []
    sent: float = 0.0


encode_to_gateway = msgspec.msgpack.Encoder().encode
decode_to_gateway = msgspec.msgpack.Decoder(ToGateway).decode
