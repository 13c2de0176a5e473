"""Defines the events that `AmqpProtocol.receive` returns, a struct for each kind."""

from typing import Any, TypeAlias

import msgspec


class Opened(msgspec.Struct, frozen=True):
    """The handshake is complete: channels can be opened."""


class Delivered(msgspec.Struct, frozen=True, gc=False):
    """A message for a consumer of the channel."""

    channel: int
    tag: int
    redelivered: bool
    body: bytes


class Confirmed(msgspec.Struct, frozen=True, gc=False):
    """RabbitMQ took the published message with this tag, or with `rejected` did not take it (basic.nack).

    With `multiple` this holds for all messages up to the tag.
    """

    channel: int
    tag: int
    multiple: bool
    rejected: bool


class Returned(msgspec.Struct, frozen=True, gc=False):
    """A mandatory message found no queue. It is confirmed as well, after this."""

    channel: int
    message_id: str
    reason: str


class Replied(msgspec.Struct, frozen=True):
    """RabbitMQ answered the oldest call of the channel; `method` is one of pamqp's `commands`."""

    channel: int
    method: Any


class ConsumerCancelled(msgspec.Struct, frozen=True, gc=False):
    """RabbitMQ ended the channel's consumer by itself, because its queue was deleted or is unavailable."""

    channel: int


class Blocked(msgspec.Struct, frozen=True, gc=False):
    """RabbitMQ has stopped reading from publishers for this reason (memory, disk); None: it reads again."""

    reason: str | None


class ChannelClosed(msgspec.Struct, frozen=True, gc=False):
    """RabbitMQ closed the channel, with a reply code of AMQP and a text."""

    channel: int
    code: int
    reason: str


class Closed(msgspec.Struct, frozen=True, gc=False):
    """The connection is closed, and nothing more will be reported. `code` is a reply code of AMQP, or 0."""

    code: int
    reason: str


Event: TypeAlias = (
    Opened | Delivered | Confirmed | Returned | Replied | ConsumerCancelled | Blocked | ChannelClosed | Closed
)
