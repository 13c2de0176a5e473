"""A virtual peer: does what a browser does, and checks what it is told."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from picows import WSError

from loadtest.client import rtp
from loadtest.client.ledger import Overflow
from loadtest.client.protoo import Ended, Refusal
from loadtest.client.session import Session
from loadtest.generator.asking import Asking, Then, nothing
from loadtest.generator.profiles import Profile
from loadtest.model.pauses import Turns, listen
from loadtest.model.peer_view import View
from loadtest.model.recorder import Recorder
from loadtest.model.room import Life, Room
from loadtest.model.room_log import Key, Member
from shared.protocol.client import MESSAGE, NOTIFICATION, REQUEST

AGAIN_AFTER: Final = 1.0
"""Seconds after which a peer that lost its session comes again."""
CLOSED_WITHIN: Final = 10.0
PAD: Final = "x" * 4096

State: TypeAlias = Literal["away", "coming", "here", "leaving"]


@dataclass
class Producer:
    id: int
    n: int
    paused: bool = False


class Peer(Asking):
    """`come` is to be a task; what it does then is asked of it (`say`, `control`, `cut`, `renew`, `go`)."""

    def __init__(
        self, room: Room, name: str, urls: Sequence[str], profile: Profile, recorder: Recorder, chance: random.Random
    ) -> None:
        super().__init__(f"{room.name}/{name}", recorder)
        self.name = name
        self.state: State = "away"
        self._room = room
        self._urls = urls
        self._profile = profile
        self._chance = chance
        self._life = 0
        self._n = 0
        self._ids = 1000
        self._capabilities: Any = None
        self._forget()

    def _forget(self) -> None:
        """It is in no room."""
        self._view: View | None = None
        self._doing = Life()
        self._producers: dict[int, Producer] = {}
        self._transports: dict[str, int] = {}
        self._unready: set[int] = set()
        self._ready: asyncio.Future[None] | None = None

    @property
    def _here(self) -> View:
        assert self._view is not None
        return self._view

    @property
    def joined(self) -> bool:
        return self._view is not None and self._view.joined

    # --- coming and going -------------------------------------------------------------------------------------

    async def come(self, due: float) -> None:
        """Connects, joins, sends and receives; tries again until it is there or the test is over."""
        self.state = "coming"
        while True:
            try:
                await self._enter(due)
                self.state = "here"
                return
            except (Refusal, Ended, Overflow) as why:
                await self._drop(why)
            except (OSError, WSError, TimeoutError) as why:
                self._wrong("sessions", f"could not connect: {why or type(why).__name__}")
                await self._drop(why)
            if self._recorder.stopping:
                self.state = "away"
                return
            await asyncio.sleep(AGAIN_AFTER * self._chance.uniform(0.5, 1.5))
            due = time.monotonic()

    async def _enter(self, due: float) -> None:
        if self.session is None:
            await self._connect(due)
        if not self._profile.joins:
            return
        room = await self._call(REQUEST, "queryRoom")
        self._capabilities = room["rtpCapabilities"]
        await self._join()
        if self._profile.media:
            await self._set_up()
        self._recorder.current.took("ready", time.monotonic() - due)

    async def _connect(self, due: float) -> None:
        start = self._chance.randrange(len(self._urls))
        urls = [*self._urls[start:], *self._urls[:start]]
        session = Session(
            urls[0],
            self._room.name,
            self.name,
            urls,
            on_notification=lambda method, data: self._notified(session, method, data),
            wrong=self._recorder.wrong,
            resumed=lambda seconds: self._recorder.current.took("resume", seconds),
        )
        try:
            await session.open()
        except Ended as why:
            self._wrong("sessions", f"refused with {why}")
            raise
        self.session = session
        session.ended.add_done_callback(lambda ended: self._ended(session, ended.result()))
        self._recorder.current.took("connect", time.monotonic() - due)

    async def _join(self) -> None:
        now = time.monotonic()
        self._life += 1
        self._n = 0
        member = Member(self.name, self._life)
        self._view = view = View(self._room, member, self._recorder, self._consumer_came, self._media_lost)
        self._doing = self._room.live(self.name, self._life)
        about = {"life": self._life, "t": now}
        await self._call(
            *(REQUEST, "join", lambda answer: view.has_joined(answer["peers"])),
            peerName=self.name,
            rtpCapabilities=self._capabilities,
            appData=about,
        )

    def _consumer_came(self, id_: int, now: float) -> None:
        if "recv" in self._transports and self.state != "leaving":
            self._enable(id_, now)

    def _media_lost(self) -> None:
        """As an application that knows no better: it joins anew."""
        if self.state == "here":
            self.renew(time.monotonic())

    async def _set_up(self) -> None:
        """Both transports, both producers, and every consumer that was there already."""
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
            data, then = self._producer(kind)
            await self._call(REQUEST, "createProducer", then, **data)
        self._set_ready()
        await self._finished(ready)

    def _set_ready(self) -> None:
        if self._ready is not None and not self._unready and not self._ready.done():
            self._ready.set_result(None)

    def renew(self, due: float) -> None:
        """Leaves now, and comes again."""
        self.state = "leaving"
        self._recorder.spawn(self.go(due))

    async def go(self, due: float | None = None, *, again: bool = True) -> None:
        """Leaves, and joins again a little later, every other time over a new connection."""
        self.state = "leaving"
        try:
            if self.joined:
                await self._leave(due or time.monotonic())
            if not again or self._chance.random() < 0.5:
                await self._close()
        except (Refusal, Ended, Overflow) as why:
            await self._drop(why)
        self.state = "away"
        if again and not self._recorder.stopping:
            pause = self._chance.uniform(0.2, 1.0)
            self.state = "coming"
            await asyncio.sleep(pause)
            await self.come(time.monotonic())

    async def _leave(self, due: float) -> None:
        view, key = self._here, self._key()
        self._doing.leave = key.n
        known = view.leaving()

        def left(_: Any) -> None:
            view.has_left(key, known)
            self._forget()

        await self._call(NOTIFICATION, "leave", left, due=due, appData={"t": due})

    async def _close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            self._check(session)
            try:
                async with asyncio.timeout(CLOSED_WITHIN):
                    await session.close()
            except TimeoutError:
                self._wrong("sessions", "the server did not answer the end of the connection")
                await session.abandon()

    async def _drop(self, why: BaseException) -> None:
        """Whatever it was, it begins anew; what went wrong is counted."""
        self._abandon_life()
        if isinstance(why, Refusal):
            await self._close()
        elif (session := self.session) is not None:
            self.session = None
            self._check(session)
            await session.abandon()

    def _ended(self, session: Session, why: Ended) -> None:
        if self.session is not session:
            return
        self.session = None
        self._check(session)
        self._wrong("sessions", f"ended with {why}")
        self._fail_calls(why)
        self._abandon_life()
        if self.state == "here":
            self.state = "coming"
            self._recorder.spawn(self._come_soon())

    async def _come_soon(self) -> None:
        await asyncio.sleep(AGAIN_AFTER)
        await self.come(time.monotonic())

    def _abandon_life(self) -> None:
        if self._view is not None:
            self._view.ended()
        self._forget()

    def _check(self, session: Session) -> None:
        """The numbers of what came had no gap and nothing twice."""
        ledger = session.ledger
        for kind, count in (("duplicated", ledger.duplicates), ("reordered", ledger.gaps)):
            if count:
                self._wrong(kind, f"{count} of the session's numbers were {kind}")

    def _notified(self, session: Session, method: str, data: Any) -> None:
        if session is not self.session:
            return  # it is being closed
        if self._view is not None:
            self._view.told(method, data)
        else:
            self._wrong("unlike", f"told {method} {str(data)[:200]}, and it is in no room")

    # --- doing ------------------------------------------------------------------------------------------------

    def say(self, due: float) -> None:
        """A message, to all or to one."""
        pad = PAD[: self._profile.message_bytes]
        if self._here.peers and self._chance.random() < self._profile.to_one:
            to = self._chance.choice(list(self._here.peers))
            life = self._here.peers[to]
            n = self._room.direct.say(self.name, to)
            self._post(
                *(MESSAGE, "message", due, {"to": to, "data": {"one": n, "t": due, "pad": pad}}),
                lambda _: self._room.direct.taken(self.name, to, n),
                excused=lambda: self._here.peers.get(to) != life,
            )
        else:
            key = self._key()
            data = {"data": {"life": key.life, "n": key.n, "t": due, "pad": pad}}
            self._post(MESSAGE, "message", due, data, lambda _: self._here.saw(key, "message"))

    def control(self, due: float) -> None:
        """One of the things that people do in a call."""
        things = [self._pause_producer] * 3 + [self._pause_consumer] * 3
        things += [self._prefer, self._restart, self._query, self._change_producers]
        self._chance.choice(things)(due)

    def cut(self) -> None:
        if self.session is not None:
            self.session.cut()

    def _query(self, due: float) -> None:
        self._request("queryRoom", due, nothing)

    def _restart(self, due: float) -> None:
        if self._transports:
            id_ = self._chance.choice(list(self._transports.values()))
            self._request("restartTransport", due, nothing, id=id_)

    def _change_producers(self, due: float) -> None:
        """A third producer comes, or goes: somebody shares a screen."""
        if len(self._producers) < 3:
            if "send" in self._transports:
                self._produce("video", due)
            return
        producer = self._producers.pop(max(self._producers))
        key = self._key()
        self._doing.closes[producer.n] = key.n
        self._order("closeProducer", due, lambda _: self._here.saw(key, "close", producer.n), id=producer.id)

    def _produce(self, kind: str, due: float) -> None:
        data, then = self._producer(kind)
        self._request("createProducer", due, then, **data)

    def _producer(self, kind: str) -> tuple[dict[str, Any], Then]:
        """A createProducer, and what its answer means."""
        key = self._key()
        producer = Producer(self._next_id(), key.n)
        self._doing.turns[key.n] = Turns()
        parameters = rtp.microphone(self._chance) if kind == "audio" else rtp.camera(self._chance)
        data = {
            "id": producer.id,
            "kind": kind,
            "transportId": self._transports["send"],
            "rtpParameters": parameters,
            "paused": False,
            "appData": {"life": key.life, "n": key.n, "t": time.monotonic()},
        }

        def then(_: Any) -> None:
            self._producers[producer.id] = producer
            self._here.saw(key, "producer")

        return data, then

    def _pause_producer(self, due: float) -> None:
        if not self._producers:
            return
        producer = self._chance.choice(list(self._producers.values()))
        producer.paused = not producer.paused
        turns = self._doing.turns[producer.n]
        turns.asked += 1

        def then(_: Any) -> None:
            turns.answered += 1

        self._order("pauseProducer" if producer.paused else "resumeProducer", due, then, id=producer.id)

    def _enable(self, id_: int, due: float) -> None:
        consumer = self._here.consumers[id_]
        turns = self._room.life(consumer.source, consumer.life).turns.get(consumer.n) or Turns()
        answered = turns.answered

        def then(answer: Any) -> None:
            about = f"{self._who}: consumer {id_} of {consumer.source}"
            if id_ not in self._here.consumers:
                self._wrong("unlike", f"consumer {id_} of {consumer.source} enabled after it was closed")
                return
            consumer.listener = listen(about, turns, answered, answer["paused"], self._recorder.wrong)
            self._now_ready(id_)

        def excused() -> bool:
            self._now_ready(id_)
            return id_ not in self._here.consumers

        data = {"id": id_, "transportId": self._transports["recv"], "preferredProfile": "default"}
        self._request("enableConsumer", due, then, excused, **data)

    def _now_ready(self, id_: int) -> None:
        self._unready.discard(id_)
        self._set_ready()

    def _pause_consumer(self, due: float) -> None:
        enabled = [(id_, it) for id_, it in self._here.consumers.items() if it.listener]
        if enabled:
            id_, consumer = self._chance.choice(enabled)
            consumer.paused = not consumer.paused
            method = "pauseConsumer" if consumer.paused else "resumeConsumer"
            self._order(method, due, nothing, lambda: id_ not in self._here.consumers, id=id_)

    def _prefer(self, due: float) -> None:
        video = [id_ for id_, it in self._here.consumers.items() if it.listener and it.kind == "video"]
        if video:
            id_, profile = self._chance.choice(video), self._chance.choice(("low", "medium", "high"))
            gone = lambda: id_ not in self._here.consumers  # noqa: E731
            self._order("setConsumerPreferredProfile", due, nothing, gone, id=id_, profile=profile)

    # --- the end ----------------------------------------------------------------------------------------------

    async def barrier(self) -> None:
        """Returns when everything has come that happened before; raises as `_call`."""
        await self._call(REQUEST, "queryRoom")

    async def watch(self) -> list[dict[str, Any]]:
        """Joins without being seen and leaves at once: the peers that the server says are there."""
        await self._connect(time.monotonic())
        try:
            room = await self._call(REQUEST, "queryRoom")
            capabilities = {"rtpCapabilities": room["rtpCapabilities"]}
            joined = await self._call(REQUEST, "join", peerName=self.name, spy=True, **capabilities)
            await self._call(NOTIFICATION, "leave")
        finally:
            await self._close()
        peers: list[dict[str, Any]] = joined["peers"]
        return peers

    # --- small things -----------------------------------------------------------------------------------------

    def _key(self) -> Key:
        self._n += 1
        return Key(self.name, self._life, self._n)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids
