"""The queues of the broker in memory, and the channels that consume them."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shared.broker import ReceiveExclusive


@dataclass(slots=True)
class Message:
    body: bytes
    expires: float | None
    redelivered: bool = False


class Queue:
    """A queue that gives its messages in order to the channel that joined first, the single active consumer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Message] = deque()
        self._channels: list[Channel] = []
        self._awake = False

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._limit

    def put(self, message: Message) -> None:
        self._drop_expired()
        self._waiting.append(message)
        self.wake()

    def join(self, channel: "Channel") -> None:
        self._channels.append(channel)
        self.wake()

    def leave(self, channel: "Channel", unacked: Iterable[Message]) -> None:
        if channel not in self._channels:
            return
        self._channels.remove(channel)
        for message in reversed(list(unacked)):
            message.redelivered = True
            self._waiting.appendleft(message)
        self.wake()

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._awake = False
        # One pass takes what waits now: a consumer that publishes to itself must not occupy the event loop.
        for _ in range(len(self._waiting)):
            self._drop_expired()
            if not (self._waiting and self._channels and self._channels[0].has_room):
                return
            self._channels[0].take(self._waiting.popleft())
        if self._waiting:
            self.wake()

    def _drop_expired(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._waiting and (expires := self._waiting[0].expires) is not None and expires <= now:
            self._waiting.popleft()


class Channel(ABC):
    """One consumer of a queue, from its subscription to its loss."""

    has_room = True

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @abstractmethod
    def take(self, message: Message) -> None:
        """Gives the message to the consumer."""

    def close(self) -> None:
        self._queue.leave(self, ())


class PartitionChannel(Channel):
    """A consumer with acknowledgements: on closing, unacked messages return to the front of the queue in order."""

    def __init__(self, queue: Queue, receive: Callable[["MemoryDelivery"], None], prefetch: int) -> None:
        super().__init__(queue)
        self._receive = receive
        self._prefetch = prefetch
        self._unacked: dict[int, Message] = {}
        self._last_tag = 0

    @property
    def has_room(self) -> bool:  # type: ignore[override]
        return not self._prefetch or len(self._unacked) < self._prefetch

    def take(self, message: Message) -> None:
        self._last_tag += 1
        self._unacked[self._last_tag] = message
        self._receive(MemoryDelivery(self, self._last_tag, message))

    def ack(self, tag: int) -> None:
        if self._unacked.pop(tag, None) is not None:
            self._queue.wake()

    def close(self) -> None:
        unacked, self._unacked = self._unacked, {}
        self._queue.leave(self, unacked.values())


class MemoryDelivery:
    """A message of a partition's queue. See `shared.broker.Delivery`."""

    __slots__ = ("_channel", "_tag", "body", "redelivered")

    def __init__(self, channel: PartitionChannel, tag: int, message: Message) -> None:
        self.body = message.body
        self.redelivered = message.redelivered
        self._channel = channel
        self._tag = tag

    def ack(self) -> None:
        self._channel.ack(self._tag)


class ExclusiveChannel(Channel):
    """A consumer without acknowledgements."""

    def __init__(self, queue: Queue, receive: ReceiveExclusive) -> None:
        super().__init__(queue)
        self._receive = receive

    def take(self, message: Message) -> None:
        self._receive(message.body)
