"""A participant under faults: a virtual peer of the load test that acts by itself and whose media may fail."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from picows import WSError

from loadtest.client.ledger import Overflow
from loadtest.client.protoo import Ended, Refusal
from loadtest.client.rtp import FINGERPRINT, audio
from loadtest.generator.participant import Participant as VirtualPeer
from loadtest.generator.requester import OnAnswer, nothing
from loadtest.model.event_order import Member
from loadtest.model.measurements import Measured
from loadtest.model.recorder import Recorder
from loadtest.model.room import Room
from loadtest.model.room_view import Consumer, RoomView
from shared.protocol.client import NOTIFICATION, REQUEST

IN_FLIGHT = 48
"""Requests of one client without an answer, beyond which it only waits."""
TO_ONE = 0.3
"""Share of the messages that are for one peer."""
MEDIA = frozenset({404, 503})
"""Legitimate errors of requests about media while media nodes come and go."""
NO_NODE = frozenset({503})
NONE: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Failure:
    """A failure; the report counts failures by `kind`."""

    at: float
    kind: str
    text: str


class FailureLog(Recorder):
    """The measurements and failures of all participants of a run."""

    def __init__(self) -> None:
        self.current = Measured()
        self.stopping = False
        self.failures: list[Failure] = []

    def fail(self, kind: str, text: str) -> None:
        self.failures.append(Failure(time.monotonic(), kind, text))

    def count_own_exception(self, error: Exception) -> None:
        self.fail("broken", f"this driver failed: {error!r}")

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        raise NotImplementedError("participants have one task each")


@dataclass
class Probe:
    """A request that shows when things go on: when it was answered."""

    answered_at: float | None = None
    ended: bool = False
    """The session ended before the answer came."""

    @property
    def waits(self) -> bool:
        return self.answered_at is None and not self.ended


@dataclass
class Media:
    """The transports and producers of a participant."""

    transports: dict[int, str] = field(default_factory=dict)
    """The direction (`send` or `recv`) by id."""
    producers: dict[int, tuple[int, bool]] = field(default_factory=dict)
    """The transport, and whether it is paused, by id."""


class Participant(VirtualPeer):
    """`live` and `chat` are to be tasks, until `stop`; then `leave_for_good`."""

    def __init__(
        self, urls: list[str], room: Room, name: str, seed: str, rate: float, recorder: Recorder | None = None
    ) -> None:
        super().__init__(room, name, urls, recorder or FailureLog(), random.Random(f"{seed}/{room.name}/{name}"))
        self.media = Media()
        self._rate = rate
        self._quiet = True
        self._stopping = False

    # --- its life -----------------------------------------------------------------------------------------------

    async def live(self) -> None:
        while not self._stopping:
            try:
                if self.session is None:
                    await self._open_session()
                await self._step()
            except Ended:
                pass  # the next round opens another session
            except Overflow as overflow:
                self._fail("unbounded", f"{overflow}")
                await asyncio.sleep(1)
            await asyncio.sleep(self._chance.expovariate(self._rate))

    async def chat(self) -> None:
        """Sends messages to the others beside whatever else it does, without waiting for answers."""
        while not self._stopping:
            await asyncio.sleep(self._chance.expovariate(self._rate))
            if self._may_chat:
                self._say(time.monotonic(), TO_ONE)

    def stop(self) -> None:
        self._stopping = True

    @property
    def gateway(self) -> str:
        """The address of the gateway that it is connected to, or was last; empty without a session."""
        return self.session.url if self.session is not None and self._has_session else ""

    @property
    def consumers(self) -> dict[int, Consumer]:
        return self._view.consumers if self._view is not None else {}

    @property
    def peers(self) -> set[str]:
        return set(self._view.peers) if self._view is not None else set()

    async def leave_for_good(self) -> None:
        """Leaves the room, if it is there, and ends the session."""
        if self.joined:
            await self._leave_room()
        await self._close()

    async def abort(self) -> None:
        """Ends its session without a close frame."""
        if (session := self.session) is not None:
            self.session = None
            await session.abort()

    def probe(self) -> Probe | None:
        """Sends a request whose answer shows when things go on; None if there is no session."""
        if not self._has_session:
            return None
        probe = Probe()

        def answered(_: Any) -> None:
            probe.answered_at = time.monotonic()

        def failed(_: Refusal | Ended) -> None:
            probe.ended = True

        self._post(REQUEST, "queryRoom", time.monotonic(), {"method": "queryRoom"}, answered, failed=failed)
        return probe

    def burst(self, count: int) -> None:
        """Sends so many messages at once, or requests while it may not send messages."""
        for _ in range(count):
            if self._may_chat:
                self._say(time.monotonic(), TO_ONE)
            elif self.in_flight < IN_FLIGHT:
                self.probe()

    async def _open_session(self) -> None:
        try:
            await self._connect()
        except (OSError, WSError, TimeoutError, Ended):
            self._recorder.current.counts["attempts without a session"] += 1
            await asyncio.sleep(0.2)
            raise Ended(0, "no session") from None

    def _new_view(self, member: Member) -> RoomView:
        return View(self.room, member, self._recorder, self._remove_transport)

    def _forget(self) -> None:
        super()._forget()
        self.media, self._quiet = Media(), True

    # --- asking -------------------------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        on_answer: OnAnswer = nothing,
        allowed: frozenset[int] = MEDIA,
        protoo: str = REQUEST,
        **fields: Any,
    ) -> bool:
        """Sends a request; returns whether it succeeded. Errors but the `allowed` are failures. Raises `Ended`."""
        try:
            await self._call(protoo, method, on_answer, is_expected=lambda refusal: refusal.code in allowed, **fields)
        except Refusal:
            return False
        return True

    async def _send_command(self, method: str, on_answer: OnAnswer = nothing, **fields: Any) -> bool:
        """Sends a notification of the specification as a request, so that it is answered."""
        return await self._ask(method, on_answer, protoo=NOTIFICATION, **fields)

    @property
    def _may_chat(self) -> bool:
        return self._has_session and self.joined and not self._quiet and self.in_flight < IN_FLIGHT

    @property
    def _has_session(self) -> bool:
        return self.session is not None and not self.session.ended.done()

    # --- doing --------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        """Does the next thing, by chance."""
        if not self.joined:
            try:
                await self._join()
            except Refusal:
                return
            self._quiet = False
            return
        while self.in_flight >= IN_FLIGHT:
            await asyncio.sleep(0.05)
        if self._chance.random() < 0.04:
            await self._leave_room()
            if self._chance.random() < 0.4:
                await self._close()
            return
        await self._chance.choice(self._possible())()

    def _possible(self) -> list[Callable[[], Any]]:
        send, recv = self._transport("send"), self._transport("recv")
        if send is None:
            return [lambda: self._create_transport("send")]
        if recv is None:
            return [lambda: self._create_transport("recv")]
        things: list[Callable[[], Any]] = [lambda: self._ask("queryRoom", allowed=NONE)]
        if len(self.media.producers) < 2:
            things += [lambda: self._produce(send)] * 4
        for producer, (_, paused) in self.media.producers.items():
            things.append(partial(self._pause_producer, producer, not paused))
        if self.media.producers:
            things.append(lambda: self._close_producer(self._chance.choice(sorted(self.media.producers))))
        for id_, consumer in self.consumers.items():
            if consumer.transport is None:
                things += [partial(self._enable, id_, recv)] * 2
            else:
                things.append(partial(self._pause_consumer, id_, not consumer.paused))
        if self._chance.random() < 0.05:
            things = [lambda: self._close_transport(self._chance.choice([send, recv]))]
        return things

    def _transport(self, direction: str) -> int | None:
        return next((id_ for id_, way in self.media.transports.items() if way == direction), None)

    async def _leave_room(self) -> None:
        self._quiet = True
        try:
            await self._leave(time.monotonic(), lambda: None)
        except Refusal:
            self._quiet = False

    async def _create_transport(self, direction: str) -> None:
        id_ = self._next_id()
        on_answer = lambda _: self.media.transports.__setitem__(id_, direction)  # noqa: E731
        more: dict[str, Any] = {"dtlsParameters": FINGERPRINT} if direction == "send" else {}
        await self._ask("createTransport", on_answer, NO_NODE, id=id_, direction=direction, options={}, **more)
        if direction == "recv" and id_ in self.media.transports:
            await self._send_command("updateTransport", id=id_, dtlsParameters=FINGERPRINT)

    async def _close_transport(self, id_: int) -> None:
        await self._send_command("closeTransport", lambda _: self._remove_transport(id_), id=id_)

    def _remove_transport(self, id_: int) -> None:
        """A transport is closed, and with it what it carries."""
        if self.media.transports.pop(id_, None) is None:
            self._fail("mismatch", f"transport {id_} was closed, which is not there")
            return
        producers = self.media.producers.items()
        self.media.producers = {it: (where, paused) for it, (where, paused) in producers if where != id_}
        for consumer in self.consumers.values():
            if consumer.transport == id_:
                consumer.transport = None

    async def _produce(self, transport: int) -> None:
        id_ = self._next_id()
        paused = self._chance.random() < 0.3
        on_answer = lambda _: self.media.producers.__setitem__(id_, (transport, paused))  # noqa: E731
        about: dict[str, Any] = {
            "kind": "audio",
            "transportId": transport,
            "rtpParameters": audio(id_),
            "paused": paused,
        }
        await self._ask("createProducer", on_answer, id=id_, **about)

    async def _pause_producer(self, id_: int, paused: bool) -> None:
        def on_answer(_: Any) -> None:
            self.media.producers[id_] = (self.media.producers[id_][0], paused)

        await self._send_command("pauseProducer" if paused else "resumeProducer", on_answer, id=id_)

    async def _close_producer(self, id_: int) -> None:
        def on_answer(_: Any) -> None:
            self.media.producers.pop(id_, None)

        await self._send_command("closeProducer", on_answer, id=id_)

    async def _enable(self, id_: int, transport: int) -> None:
        def on_answer(answer: Any) -> None:
            if (consumer := self.consumers.get(id_)) is None:
                self._fail("mismatch", f"consumer {id_} enabled after it was closed")
                return
            consumer.transport, consumer.source_paused = transport, answer["paused"]

        await self._ask("enableConsumer", on_answer, id=id_, transportId=transport)

    async def _pause_consumer(self, id_: int, paused: bool) -> None:
        def on_answer(_: Any) -> None:
            self.consumers[id_].paused = paused

        await self._send_command("pauseConsumer" if paused else "resumeConsumer", on_answer, id=id_)


class View(RoomView):
    """Media may be closed by the server, when a media node dies."""

    def __init__(
        self, room: Room, member: Member, recorder: Recorder, on_transport_closed: Callable[[int], None]
    ) -> None:
        super().__init__(room, member, recorder)
        self._on_transport_closed = on_transport_closed

    def _transport_closed(self, id_: int) -> None:
        self._on_transport_closed(id_)
