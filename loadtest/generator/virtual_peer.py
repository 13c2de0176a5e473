"""A virtual peer of the load generator, which acts like a browser as its profile says."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from picows import WSError

from loadtest.client import rtp
from loadtest.client.ledger import Overflow
from loadtest.client.protoo import Ended, ProtooClient, Refusal
from loadtest.generator.participant import Participant
from loadtest.generator.profiles import Profile
from loadtest.generator.requester import NOT_FOUND, IsExpected, OnAnswer, nothing
from loadtest.model.event_order import Member
from loadtest.model.media_view import MediaView
from loadtest.model.pauses import PauseCounts, check_consumer
from loadtest.model.recorder import Recorder
from loadtest.model.room import Room
from shared.protocol.client import NOTIFICATION, REQUEST

RETRY_SECONDS: Final = 1.0
"""Mean seconds before a peer that lost its session, or could not join, tries again."""

State: TypeAlias = Literal["disconnected", "joining", "joined", "leaving"]


@dataclass
class Producer:
    id: int
    n: int
    paused: bool = False


class Peer(Participant):
    """A virtual peer. Run `arrive` as a task.

    Its actions are `say`, `control`, `drop_connection`, `rejoin` and `leave`.
    """

    def __init__(
        self, room: Room, name: str, urls: Sequence[str], profile: Profile, recorder: Recorder, chance: random.Random
    ) -> None:
        super().__init__(room, name, urls, recorder, chance)
        self.state: State = "disconnected"
        self._profile = profile
        self._reset()

    def _reset(self) -> None:
        self._producers: dict[int, Producer] = {}
        self._transports: dict[str, int] = {}
        self._unready: set[int] = set()
        self._ready: asyncio.Future[None] | None = None

    def _forget(self) -> None:
        super()._forget()
        self._reset()

    @property
    def _here(self) -> MediaView:
        assert isinstance(self._view, MediaView)
        return self._view

    def _new_view(self, member: Member) -> MediaView:
        return MediaView(self.room, member, self._recorder, self._consumer_offered, self._media_lost)

    # --- joining and leaving ----------------------------------------------------------------------------------

    async def arrive(self, due: float) -> None:
        """Connects, joins, and sets its media up; tries again until that succeeds or the test ends."""
        self.state = "joining"
        while True:
            try:
                await self._enter(due)
                self.state = "joined"
                return
            except (Refusal, Ended, Overflow) as why:
                await self._discard_session(why)
            except (OSError, WSError, TimeoutError) as why:
                self._fail("sessions", f"could not connect: {why or type(why).__name__}")
                await self._discard_session(why)
            if self._recorder.stopping:
                self.state = "disconnected"
                return
            await asyncio.sleep(RETRY_SECONDS * self._chance.uniform(0.5, 1.5))
            due = time.monotonic()

    async def _enter(self, due: float) -> None:
        if self.session is None:
            await self._begin_session(due)
        if not self._profile.joins:
            return
        await self._join()
        if self._profile.media:
            await self._set_up()
        self._recorder.current.took("ready", time.monotonic() - due)

    async def _begin_session(self, due: float) -> None:
        try:
            await self._connect()
        except Ended as why:
            self._fail("sessions", f"refused with {why}")
            raise
        self._recorder.current.took("connect", time.monotonic() - due)

    def _consumer_offered(self, id_: int, now: float) -> None:
        if "recv" in self._transports and self.state != "leaving":
            try:
                self._enable(id_, now)
            except Overflow as unbounded:
                self._fail("sessions", f"{unbounded}")

    def _media_lost(self) -> None:
        """Joins again after a transport was lost, as applications do that cannot replace one."""
        if self.state == "joined":
            self.rejoin(time.monotonic())

    async def _set_up(self) -> None:
        """Creates both transports and both producers, and enables all consumers that exist already."""
        send, recv = self._next_id(), self._next_id()
        dtls = rtp.dtls(self._chance)
        await self._call(REQUEST, "createTransport", id=send, direction="send", options={}, dtlsParameters=dtls)
        self._transports["send"] = send
        await self._call(REQUEST, "createTransport", id=recv, direction="recv", options={})
        await self._call(NOTIFICATION, "updateTransport", id=recv, dtlsParameters=dtls)
        self._unready = set(self._here.consumers)
        self._ready = ready = asyncio.get_running_loop().create_future()
        self._transports["recv"] = recv
        now = time.monotonic()
        for id_ in list(self._here.consumers):
            self._enable(id_, now)
        for kind in ("audio", "video"):
            data, on_answer = self._producer(kind)
            await self._call(REQUEST, "createProducer", on_answer, **data)
        self._set_ready()
        await self._finished(ready)

    def _set_ready(self) -> None:
        if self._ready is not None and not self._unready and not self._ready.done():
            self._ready.set_result(None)

    def rejoin(self, due: float) -> None:
        """Begins to leave and join again."""
        self.state = "leaving"
        self._recorder.spawn(self.leave(due))

    async def leave(self, due: float | None = None, *, again: bool = True) -> None:
        """Leaves. With `again` the peer joins a little later, every other time over a new connection."""
        self.state = "leaving"
        try:
            if self.joined:
                await self._leave_room(due or time.monotonic())
            if not again or self._chance.random() < 0.5:
                await self._close()
        except (Refusal, Ended, Overflow) as why:
            await self._discard_session(why)
        self.state = "disconnected"
        if again and not self._recorder.stopping:
            pause = self._chance.uniform(0.2, 1.0)
            self.state = "joining"
            await asyncio.sleep(pause)
            await self.arrive(time.monotonic())

    async def _leave_room(self, due: float) -> None:
        view = self._here
        known = view.leaving()
        await self._leave(due, lambda: view.check_pauses(known))

    def _ended(self, session: ProtooClient, why: Ended) -> None:
        is_mine = self.session is session
        super()._ended(session, why)
        if is_mine and self.state == "joined":
            self.state = "joining"
            self._recorder.spawn(self._arrive_later())

    async def _arrive_later(self) -> None:
        await asyncio.sleep(RETRY_SECONDS)
        await self.arrive(time.monotonic())

    # --- doing ------------------------------------------------------------------------------------------------

    def say(self, due: float) -> None:
        """Sends a message, to all or to one."""
        self._say(due, self._profile.to_one, self._profile.message_bytes)

    def control(self, due: float) -> None:
        """Carries out one of the actions of a call, chosen by chance."""
        things = [self._pause_producer] * 3 + [self._pause_consumer] * 3
        things += [self._prefer, self._restart, self._query, self._change_producers]
        self._chance.choice(things)(due)

    def drop_connection(self) -> None:
        if self.session is not None:
            self.session.drop_connection()

    def _query(self, due: float) -> None:
        self._request("queryRoom", due, nothing)

    def _restart(self, due: float) -> None:
        if self._transports:
            id_ = self._chance.choice(list(self._transports.values()))
            self._request("restartTransport", due, nothing, id=id_)

    def _change_producers(self, due: float) -> None:
        """Creates a third producer, like a screen share, or closes it."""
        if len(self._producers) < 3:
            if "send" in self._transports:
                self._produce("video", due)
            return
        producer = self._producers.pop(max(self._producers))
        key = self._key()
        self._doing.closes[producer.n] = key.n
        self._command("closeProducer", due, lambda _: self._here.observe(key, "close", producer.n), id=producer.id)

    def _produce(self, kind: str, due: float) -> None:
        data, on_answer = self._producer(kind)
        self._request("createProducer", due, on_answer, **data)

    def _producer(self, kind: str) -> tuple[dict[str, Any], OnAnswer]:
        """Returns the data of a createProducer, and the callback for its answer."""
        key = self._key()
        producer = Producer(self._next_id(), key.n)
        self._doing.turns[key.n] = PauseCounts()
        parameters = rtp.microphone(self._chance) if kind == "audio" else rtp.camera(self._chance)
        data = {
            "id": producer.id,
            "kind": kind,
            "transportId": self._transports["send"],
            "rtpParameters": parameters,
            "paused": False,
            "appData": {"life": key.life, "n": key.n, "t": time.monotonic()},
        }

        def on_answer(_: Any) -> None:
            self._producers[producer.id] = producer
            self._here.observe(key, "producer")

        return data, on_answer

    def _pause_producer(self, due: float) -> None:
        if not self._producers:
            return
        producer = self._chance.choice(list(self._producers.values()))
        producer.paused = not producer.paused
        turns = self._doing.turns[producer.n]
        turns.asked += 1

        def on_answer(_: Any) -> None:
            turns.answered += 1

        self._command("pauseProducer" if producer.paused else "resumeProducer", due, on_answer, id=producer.id)

    def _enable(self, id_: int, due: float) -> None:
        consumer = self._here.consumers[id_]
        turns = self.room.life(consumer.source, consumer.life).turns.get(consumer.n) or PauseCounts()
        answered = turns.answered

        def on_answer(answer: Any) -> None:
            about = f"{self._who}: consumer {id_} of {consumer.source}"
            if id_ not in self._here.consumers:
                self._fail("mismatch", f"consumer {id_} of {consumer.source} enabled after it was closed")
                return
            consumer.pauses = check_consumer(about, turns, answered, answer["paused"], self._recorder.fail)
            self._now_ready(id_)

        def is_expected(refusal: Refusal) -> bool:
            self._now_ready(id_)
            return refusal.code == NOT_FOUND and id_ not in self._here.consumers

        data = {"id": id_, "transportId": self._transports["recv"], "preferredProfile": "default"}
        self._request("enableConsumer", due, on_answer, is_expected, **data)

    def _now_ready(self, id_: int) -> None:
        self._unready.discard(id_)
        self._set_ready()

    def _pause_consumer(self, due: float) -> None:
        enabled = [(id_, it) for id_, it in self._here.consumers.items() if it.pauses]
        if enabled:
            id_, consumer = self._chance.choice(enabled)
            consumer.paused = not consumer.paused
            method = "pauseConsumer" if consumer.paused else "resumeConsumer"
            self._command(method, due, nothing, self._closed_meanwhile(id_), id=id_)

    def _prefer(self, due: float) -> None:
        video = [id_ for id_, it in self._here.consumers.items() if it.pauses and it.kind == "video"]
        if video:
            id_, profile = self._chance.choice(video), self._chance.choice(("low", "medium", "high"))
            is_expected = self._closed_meanwhile(id_)
            self._command("setConsumerPreferredProfile", due, nothing, is_expected, id=id_, profile=profile)

    def _closed_meanwhile(self, id_: int) -> IsExpected:
        """Excuses a request about a consumer that its source has closed before the answer came."""
        return lambda refusal: refusal.code == NOT_FOUND and id_ not in self._here.consumers

    async def list_peers(self) -> list[dict[str, Any]]:
        """Joins as a spy and leaves at once. Returns the peers that the server lists."""
        await self._begin_session(time.monotonic())
        try:
            room = await self._call(REQUEST, "queryRoom")
            capabilities = {"rtpCapabilities": room["rtpCapabilities"]}
            joined = await self._call(REQUEST, "join", peerName=self.name, spy=True, **capabilities)
            await self._call(NOTIFICATION, "leave")
        finally:
            await self._close()
        peers: list[dict[str, Any]] = joined["peers"]
        return peers
