"""Calls of the server API on their way to the rooms: each is kept until it is answered, or given up.

A call's identity is its key, so the room worker does it once however often it arrives; publishing it again after
silence, or after the broker was lost, is therefore harmless (DELIVERY I6).
"""

import asyncio
import itertools
import secrets
from typing import Final

from gateway.bus.partition_publisher import InputPublisher, PartitionPublisher
from shared.errors import Unavailable, error
from shared.protocol.actions import AnyAction, encode
from shared.protocol.bus import Call, CallAnswer, encode_item

FIRST_PATIENCE: Final = 4
LAST_PATIENCE: Final = 16
"""Sweeps without an answer after which a call is published again: at first, and at most."""
LIFETIME: Final = 30
"""Sweeps after which the caller is told that nobody answered."""

WAITING_CALLS: Final = 1024
WAITING_BYTES: Final = 64 * 1024 * 1024
"""Beyond which a new call is refused: callers may try again later, clients' messages must not be delayed."""

_OK: Final = 200


class Pending:
    """One call as its publisher sees it: a source of a single item."""

    __slots__ = ("age", "answered", "encoded", "patience", "publisher", "queued", "sendable", "silent")

    def __init__(self, encoded: bytes, publisher: PartitionPublisher) -> None:
        self.encoded = encoded
        self.publisher = publisher
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.queued = False
        self.sendable = True
        self.age = 0
        self.silent = 0
        self.patience = FIRST_PATIENCE

    def take(self) -> bytes | None:
        if not self.sendable:
            return None
        self.sendable = False
        return self.encoded

    def lost(self) -> None:
        self.sendable = not self.answered.done()

    def sweep(self) -> bool:
        """Whether it was silent for too long and is to be published again."""
        self.age += 1
        self.silent += 1
        if self.silent < self.patience:
            return False
        self.silent = 0
        self.patience = min(2 * self.patience, LAST_PATIENCE)
        self.lost()
        return True


class Calls:
    """`do` asks, `answer` takes what the room worker says, `sweep` keeps the time."""

    def __init__(self, gateway: str, inputs: InputPublisher) -> None:
        self._gateway = gateway
        self._inputs = inputs
        self._waiting: dict[int, Pending] = {}
        self._size = 0
        self._numbers = itertools.count(1)

    @property
    def waiting(self) -> int:
        """Calls that are not answered yet."""
        return len(self._waiting)

    async def do(self, room: str, action: AnyAction, key: str = "") -> bytes:
        """The answer as JSON. `key` is the caller's own identity of this call; without one it gets a random one.

        Raises the `PlenaryError` that the room answered, or `Unavailable` if nobody answered in time: whether it
        was done is then unknown, and asking again with the same key finds out.
        """
        if len(self._waiting) >= WAITING_CALLS or self._size >= WAITING_BYTES:
            raise Unavailable("too many calls wait for an answer already")
        n = next(self._numbers)
        # Two name spaces: no caller's key can be another's random one.
        identity = f"key:{key}" if key else f"call:{secrets.token_hex(16)}"
        item = encode_item(Call(room, identity, self._gateway, n, encode(action)))
        call = Pending(item, self._inputs.publisher_of(room))
        self._waiting[n] = call
        self._size += len(item)
        call.publisher.sources.add(call)
        call.publisher.schedule(call)
        try:
            return await call.answered
        finally:
            self._forget(n, call)

    def _forget(self, n: int, call: Pending) -> None:
        del self._waiting[n]
        self._size -= len(call.encoded)
        call.sendable = False  # it may still stand in line
        call.publisher.sources.discard(call)

    def answer(self, answer: CallAnswer) -> bool:
        """False if nobody waits for it: given up, or answered before."""
        call = self._waiting.get(answer.n)
        if call is None or call.answered.done():
            return False
        if answer.code == _OK:
            call.answered.set_result(answer.body)
        else:
            call.answered.set_exception(error(answer.code, answer.body.decode(errors="replace")))
        return True

    def sweep(self) -> None:
        """To be called every `hub.SWEEP_EVERY` seconds."""
        for call in self._waiting.values():
            if call.answered.done():
                continue
            if call.age >= LIFETIME:
                call.answered.set_exception(Unavailable("the room did not answer in time; it may still do this"))
            elif call.sweep():
                call.publisher.schedule(call)

    def fail(self) -> None:
        """The gateway ends: whoever waits is sent elsewhere."""
        for call in self._waiting.values():
            if not call.answered.done():
                call.answered.set_exception(Unavailable("this gateway is closing"))
