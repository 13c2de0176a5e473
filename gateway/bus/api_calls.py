"""Publishes calls of the server API to the rooms, and keeps each until it is answered or has timed out.

A call's identity is its key, so the room worker does it once however often it arrives; to publish it again after
silence, or after the broker was lost, is therefore harmless (DELIVERY I6).
"""

import asyncio
import itertools
import secrets
from typing import Final

from gateway.bus.partition_publisher import InputPublisher, PartitionPublisher
from gateway.protocol.repeat_timer import RepeatTimer
from shared.errors import Unavailable, error
from shared.protocol.actions import AnyAction, encode
from shared.protocol.bus import Call, CallAnswer, encode_item

CALL_TIMEOUT: Final = 30
"""The number of sweeps after which a call is answered 503, because the room did not answer."""

WAITING_CALLS: Final = 1024
WAITING_BYTES: Final = 64 * 1024 * 1024
"""Bounds beyond which a new call is rejected: callers may try again later, clients' messages must not be delayed."""

_OK: Final = 200


class PendingCall:
    """An unanswered call, which is a source of a single item for its publisher."""

    __slots__ = ("_due", "_repeat_timer", "age", "answered", "encoded", "publisher", "queued")

    def __init__(self, encoded: bytes, publisher: PartitionPublisher) -> None:
        self.encoded = encoded
        self.publisher = publisher
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.queued = False
        self.age = 0
        """The number of sweeps since the call was made."""
        self._repeat_timer = RepeatTimer()
        self._due = True

    def take(self) -> bytes | None:
        """Returns the encoded call, once until `rewind`."""
        if not self._due:
            return None
        self._due = False
        return self.encoded

    def rewind(self) -> bool:
        """Hands the call out again unless it is answered."""
        self._due = not self.answered.done()
        return self._due

    def withdraw(self) -> None:
        """Stops publishing the call, which nobody waits for any more; it may still be queued."""
        self._due = False
        self.publisher.sources.discard(self)

    def sweep(self) -> bool:
        """Counts a sweep, and returns whether the call is to be published again after a long silence."""
        self.age += 1
        return self._repeat_timer.sweep() and self.rewind()


class ApiCalls:
    """Keeps the unanswered calls of a gateway, publishes them again after silence, and passes answers to callers."""

    def __init__(self, gateway: str, inputs: InputPublisher) -> None:
        self._gateway = gateway
        self._inputs = inputs
        self._pending: dict[int, PendingCall] = {}
        self._size = 0
        self._numbers = itertools.count(1)

    @property
    def waiting(self) -> int:
        """The number of calls that are not answered yet."""
        return len(self._pending)

    async def call(self, room: str, action: AnyAction, key: str = "") -> bytes:
        """Publishes a call and returns its answer as JSON.

        `key` is the caller's own identity of this call; without one it gets a random one.

        Raises the `PlenaryError` that the room answered, or `Unavailable` if it did not answer in time: whether the
        call was done is then unknown, and the same call with the same key finds out.
        """
        if len(self._pending) >= WAITING_CALLS or self._size >= WAITING_BYTES:
            raise Unavailable("too many calls wait for an answer already")
        n = next(self._numbers)
        # The prefixes keep callers' keys and random ones apart.
        identity = f"key:{key}" if key else f"call:{secrets.token_hex(16)}"
        item = encode_item(Call(room, identity, self._gateway, n, encode(action)))
        call = PendingCall(item, self._inputs.publisher_of(room))
        self._pending[n] = call
        self._size += len(item)
        call.publisher.sources.add(call)
        call.publisher.schedule(call)
        try:
            return await call.answered
        finally:
            del self._pending[n]
            self._size -= len(item)
            call.withdraw()

    def resolve(self, answer: CallAnswer) -> bool:
        """Passes the room's answer to its caller; returns False if no caller waits for it any more."""
        call = self._pending.get(answer.n)
        if call is None or call.answered.done():
            return False
        if answer.code == _OK:
            call.answered.set_result(answer.body)
        else:
            call.answered.set_exception(error(answer.code, answer.body.decode(errors="replace")))
        return True

    def sweep(self) -> None:
        """Publishes calls again after silence and ends those that timed out.

        To be called every `hub.SWEEP_EVERY` seconds.
        """
        for call in self._pending.values():
            if call.answered.done():
                continue
            if call.age >= CALL_TIMEOUT:
                call.answered.set_exception(Unavailable("the room did not answer in time; it may still do this"))
            elif call.sweep():
                call.publisher.schedule(call)

    def fail_all(self) -> None:
        """Answers all callers 503, because the gateway closes."""
        for call in self._pending.values():
            if not call.answered.done():
                call.answered.set_exception(Unavailable("this gateway is closing"))
