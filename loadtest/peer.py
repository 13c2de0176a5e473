"""A virtual peer: does what a browser does, and checks what it is told."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

from picows import WSError

from loadtest import rtp
from loadtest.ledger import Overflow
from loadtest.measure import Measured
from loadtest.pauses import Listener, Turns, listen
from loadtest.profile import Profile
from loadtest.protoo import Ended, Refusal
from loadtest.room import Life, Room
from loadtest.roomlog import END, Key, Kind, Member
from loadtest.session import Session
from shared.protocol.client import MESSAGE, NOTIFICATION, REQUEST

AGAIN_AFTER: Final = 1.0
"""Seconds after which a peer that lost its session comes again."""
CLOSED_WITHIN: Final = 10.0
PAD: Final = "x" * 4096

State: TypeAlias = Literal["away", "coming", "here", "leaving"]
Then: TypeAlias = Callable[[Any], None]


class Recorder(Protocol):
    """Where everything is counted. `current` is replaced every second."""

    current: Measured
    stopping: bool

    def wrong(self, kind: str, text: str) -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


@dataclass
class Consumer:
    source: str
    life: int
    n: int
    kind: str
    listener: Listener | None = None
    """Once it is enabled."""
    paused: bool = False
    """By its own peer."""


@dataclass
class Producer:
    id: int
    n: int
    paused: bool = False


class Peer:
    """`come` is to be a task; what it does then is asked of it (`say`, `control`, `cut`, `go`)."""

    def __init__(
        self, room: Room, name: str, urls: Sequence[str], profile: Profile, recorder: Recorder, chance: random.Random
    ) -> None:
        self.name = name
        self.state: State = "away"
        self.session: Session | None = None
        self._room = room
        self._urls = urls
        self._profile = profile
        self._recorder = recorder
        self._chance = chance
        self._who = f"{room.name}/{name}"
        self._life = 0
        self._n = 0
        self._ids = 1000
        self._capabilities: Any = None
        self._calls: set[asyncio.Future[Any]] = set()
        self._forget()

    def _forget(self) -> None:
        """It is in no room."""
        self._member: Member | None = None
        self._doing = Life()
        self._joined = False
        self._peers: dict[str, int] = {}
        self._consumers: dict[int, Consumer] = {}
        self._producers: dict[int, Producer] = {}
        self._transports: dict[str, int] = {}
        self._unready: set[int] = set()
        self._ready: asyncio.Future[None] | None = None

    @property
    def joined(self) -> bool:
        return self._joined

    @property
    def connected(self) -> bool:
        return self.session is not None and self.session.connected

    @property
    def in_flight(self) -> int:
        return self.session.in_flight if self.session is not None else 0

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
            on_notification=self._notified,
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
        self._member = Member(self.name, self._life)
        self._doing = self._room.live(self.name, self._life)
        about = {"life": self._life, "t": now}
        await self._call(
            *(REQUEST, "join", self._has_joined),
            peerName=self.name,
            rtpCapabilities=self._capabilities,
            appData=about,
        )

    def _has_joined(self, answer: Any) -> None:
        assert self._member is not None
        self._joined = True
        listed = {}
        for peer in answer["peers"]:
            life = peer["appData"]["life"]
            self._peers[peer["name"]] = life
            listed[peer["name"]] = (life, frozenset(it["appData"]["n"] for it in peer["consumers"]))
            for consumer in peer["consumers"]:
                self._add_consumer(consumer)
        self._room.log.joined(self._member, listed)

    async def _set_up(self) -> None:
        """Both transports, both producers, and every consumer that was there already."""
        send, recv = self._next_id(), self._next_id()
        dtls = rtp.dtls(self._chance)
        await self._call(REQUEST, "createTransport", id=send, direction="send", options={}, dtlsParameters=dtls)
        self._transports["send"] = send
        await self._call(REQUEST, "createTransport", id=recv, direction="recv", options={})
        await self._call(NOTIFICATION, "updateTransport", id=recv, dtlsParameters=dtls)
        self._unready = set(self._consumers)
        self._ready = ready = asyncio.get_running_loop().create_future()
        self._transports["recv"] = recv
        now = time.monotonic()
        for id_ in list(self._consumers):
            self._enable(id_, now)
        for kind in ("audio", "video"):
            data, then = self._producer(kind)
            await self._call(REQUEST, "createProducer", then, **data)
        self._set_ready()
        self._calls.add(ready)
        try:
            await ready
        finally:
            self._calls.discard(ready)

    def _set_ready(self) -> None:
        if self._ready is not None and not self._unready and not self._ready.done():
            self._ready.set_result(None)

    async def go(self, due: float | None = None, *, again: bool = True) -> None:
        """Leaves, and joins again a little later, every other time over a new connection."""
        due = due or time.monotonic()
        if self.session is None:
            return
        self.state = "leaving"
        try:
            if self._joined:
                await self._leave(due)
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
        member = self._member
        assert member is not None
        key = self._key()
        self._doing.leave = key.n
        before = {id_: it.listener.turns.answered for id_, it in self._consumers.items() if it.listener}

        def left(_: Any) -> None:
            for id_, consumer in self._consumers.items():
                if (listener := consumer.listener) is not None:
                    listener.leave(before.get(id_, listener.least), listener.turns.asked, self._recorder.wrong)
            self._room.log.left(member, key)
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
        session, self.session = self.session, None
        if session is not None:
            self._abandon_life()
            self._check(session)
            await session.abandon()

    def _ended(self, session: Session, why: Ended) -> None:
        if self.session is not session:
            return
        self.session = None
        self._check(session)
        self._wrong("sessions", f"ended with {why}")
        for waiting in self._calls:
            if not waiting.done():
                waiting.set_exception(why)
        self._abandon_life()
        if self.state == "here":
            self.state = "coming"
            self._recorder.spawn(self._come_soon())

    async def _come_soon(self) -> None:
        await asyncio.sleep(AGAIN_AFTER)
        await self.come(time.monotonic())

    def _abandon_life(self) -> None:
        if self._member is not None:
            self._room.log.ended(self._member)
        self._forget()

    def _check(self, session: Session) -> None:
        """The numbers of what came had no gap and nothing twice."""
        ledger = session.ledger
        for kind, count in (("duplicated", ledger.duplicates), ("reordered", ledger.gaps)):
            if count:
                self._wrong(kind, f"{count} of the session's numbers were {kind}")

    # --- doing ------------------------------------------------------------------------------------------------

    def say(self, due: float) -> None:
        """A message, to all or to one."""
        pad = PAD[: self._profile.message_bytes]
        if self._peers and self._chance.random() < self._profile.to_one:
            to = self._chance.choice(list(self._peers))
            life = self._peers[to]
            n = self._room.direct.say(self.name, to)
            self._post(
                *(MESSAGE, "message", due, {"to": to, "data": {"one": n, "t": due, "pad": pad}}),
                lambda _: self._room.direct.taken(self.name, to, n),
                excused=lambda: self._peers.get(to) != life,
            )
        else:
            key = self._key()
            data = {"data": {"life": key.life, "n": key.n, "t": due, "pad": pad}}
            self._post(MESSAGE, "message", due, data, lambda _: self._saw(key, "message"))

    def control(self, due: float) -> None:
        """One of the things that people do in a call."""
        things = [self._pause_producer] * 3 + [self._pause_consumer] * 3
        things += [self._prefer, self._restart, self._query, self._change_producers]
        self._chance.choice(things)(due)

    def cut(self) -> None:
        if self.session is not None:
            self.session.cut()

    def _query(self, due: float) -> None:
        self._request("queryRoom", due, _nothing)

    def _restart(self, due: float) -> None:
        if self._transports:
            id_ = self._chance.choice(list(self._transports.values()))
            self._request("restartTransport", due, _nothing, id=id_)

    def _change_producers(self, due: float) -> None:
        """A third producer comes, or goes: somebody shares a screen."""
        if len(self._producers) < 3:
            if "send" in self._transports:
                self._produce("video", due)
            return
        producer = self._producers.pop(max(self._producers))
        key = self._key()
        self._doing.closes[producer.n] = key.n
        self._order("closeProducer", due, lambda _: self._saw(key, "close", producer.n), id=producer.id)

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
            self._saw(key, "producer")

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
        consumer = self._consumers[id_]
        turns = self._room.life(consumer.source, consumer.life).turns.get(consumer.n) or Turns()
        answered = turns.answered

        def then(answer: Any) -> None:
            about = f"{self._who}: consumer {id_} of {consumer.source}"
            if id_ not in self._consumers:
                self._wrong("unlike", f"consumer {id_} of {consumer.source} enabled after it was closed")
                return
            consumer.listener = listen(about, turns, answered, answer["paused"], self._recorder.wrong)
            self._now_ready(id_)

        def excused() -> bool:
            self._now_ready(id_)
            return id_ not in self._consumers

        data = {"id": id_, "transportId": self._transports["recv"], "preferredProfile": "default"}
        self._request("enableConsumer", due, then, excused, **data)

    def _now_ready(self, id_: int) -> None:
        self._unready.discard(id_)
        self._set_ready()

    def _pause_consumer(self, due: float) -> None:
        enabled = [(id_, it) for id_, it in self._consumers.items() if it.listener]
        if enabled:
            id_, consumer = self._chance.choice(enabled)
            consumer.paused = not consumer.paused
            method = "pauseConsumer" if consumer.paused else "resumeConsumer"
            self._order(method, due, _nothing, lambda: id_ not in self._consumers, id=id_)

    def _prefer(self, due: float) -> None:
        video = [id_ for id_, it in self._consumers.items() if it.listener and it.kind == "video"]
        if video:
            id_, profile = self._chance.choice(video), self._chance.choice(("low", "medium", "high"))
            gone = lambda: id_ not in self._consumers  # noqa: E731
            self._order("setConsumerPreferredProfile", due, _nothing, gone, id=id_, profile=profile)

    # --- being told -------------------------------------------------------------------------------------------

    def _notified(self, method: str, data: Any) -> None:
        now = time.monotonic()
        if not self._joined:
            self._wrong("unlike", f"told {method} {str(data)[:200]}, and it is in no room")
        elif method == MESSAGE:
            self._heard(data["from"], data["data"], now)
        elif method == NOTIFICATION:
            self._told(data["method"], data, now)
        else:
            self._wrong("unlike", f"told {method} {str(data)[:200]}")

    def _heard(self, sender: str, said: Any, now: float) -> None:
        self._recorder.current.told("message", now - said["t"])
        if "one" in said:
            self._room.direct.heard(sender, self.name, said["one"])
        else:
            self._saw(Key(sender, said["life"], said["n"]), "message")

    def _told(self, what: str, data: Any, now: float) -> None:
        match what:
            case "newPeer":
                about = data["appData"]
                self._recorder.current.told(what, now - about["t"])
                self._peers[data["name"]] = about["life"]
                self._saw(Key(data["name"], about["life"], 0), "join")
            case "peerClosed":
                self._peer_closed(data, now)
            case "newConsumer":
                about = data["appData"]
                self._recorder.current.told(what, now - about["t"])
                self._add_consumer(data)
                self._saw(Key(data["peerName"], about["life"], about["n"]), "producer")
                if "recv" in self._transports and self.state != "leaving":
                    self._enable(data["id"], now)
            case "consumerClosed":
                self._recorder.current.counts[what] += 1
                self._consumer_closed(data["id"])
            case "consumerPaused" | "consumerResumed":
                self._recorder.current.counts[what] += 1
                consumer = self._consumers.get(data["id"])
                if consumer is None or consumer.listener is None:
                    self._wrong("unlike", f"{what} {data['id']}, which is not enabled")
                else:
                    consumer.listener.hear(what == "consumerPaused", self._recorder.wrong)
            case "consumerEffectiveProfileChanged":
                self._recorder.current.counts[what] += 1
            case _:
                self._wrong("unlike", f"told {what} {str(data)[:200]}, which nothing here leads to")

    def _add_consumer(self, data: Any) -> None:
        about = data["appData"]
        if data["id"] in self._consumers:
            self._wrong("duplicated", f"newConsumer {data['id']}, which is there")
        if self._peers.get(data["peerName"]) != about["life"]:
            self._wrong("unlike", f"newConsumer {data['id']} of {data['peerName']}, who is not there")
        self._consumers[data["id"]] = Consumer(data["peerName"], about["life"], about["n"], data["kind"])

    def _peer_closed(self, data: Any, now: float) -> None:
        name = data["name"]
        life = self._peers.pop(name, None)
        if life is None:
            self._wrong("unlike", f"peerClosed {name}, who is not there")
            return
        if isinstance(about := data.get("appData"), dict):
            self._recorder.current.told("peerClosed", now - about["t"])
        source = self._room.life(name, life)
        for id_ in [id_ for id_, it in self._consumers.items() if it.source == name]:
            self._stop_listening(id_, exact=source.leave != END)
        self._saw(Key(name, life, source.leave), "leave")

    def _consumer_closed(self, id_: int) -> None:
        consumer = self._consumers.get(id_)
        if consumer is None:
            self._wrong("unlike", f"consumerClosed {id_}, which is not there")
            return
        n = self._room.life(consumer.source, consumer.life).closes.get(consumer.n)
        self._stop_listening(id_, exact=n is not None)
        if n is None:
            self._wrong("unlike", f"consumerClosed {id_} of {consumer.source}, who did not close it")
        else:
            self._saw(Key(consumer.source, consumer.life, n), "close", consumer.n)

    def _stop_listening(self, id_: int, *, exact: bool) -> None:
        """`exact`: the producer's peer closed it, so all that it had asked for before is done."""
        if (listener := self._consumers.pop(id_).listener) is not None:
            turns = listener.turns
            listener.leave(turns.asked if exact else turns.answered, turns.asked, self._recorder.wrong)

    def _saw(self, key: Key, kind: Kind, about: int = 0) -> None:
        if self._member is not None:
            self._room.log.saw(self._member, key, kind, about)

    # --- asking -----------------------------------------------------------------------------------------------

    def _request(
        self, method: str, due: float, then: Then, excused: "Callable[[], bool] | None" = None, **fields: Any
    ) -> None:
        self._post(REQUEST, method, due, {"method": method, **fields}, then, excused)

    def _order(
        self, method: str, due: float, then: Then, excused: "Callable[[], bool] | None" = None, **fields: Any
    ) -> None:
        """A notification of the specification, sent as a request, so that it is answered."""
        self._post(NOTIFICATION, method, due, {"method": method, "notification": True, **fields}, then, excused)

    async def _call(
        self, protoo: str, method: str, then: Then | None = None, due: float | None = None, **fields: Any
    ) -> Any:
        """Returns the answer. Raises `Refusal` (counted already) or `Ended`."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.add(answer)

        def answered(data: Any) -> None:
            if then is not None:
                then(data)
            if not answer.done():
                answer.set_result(data)

        def refused(refusal: Refusal) -> None:
            if not answer.done():
                answer.set_exception(refusal)

        data = {"method": method, **fields}
        if protoo == NOTIFICATION:
            data["notification"] = True
        try:
            self._post(protoo, method, due or time.monotonic(), data, answered, refused=refused)
            return await answer
        finally:
            self._calls.discard(answer)

    def _post(
        self,
        protoo: str,
        method: str,
        due: float,
        data: dict[str, Any],
        then: Then,
        excused: "Callable[[], bool] | None" = None,
        refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        """`due` is when it was meant to be sent. `excused`: whether a 404 may be, because others were faster."""

        def answered(answer: Any, refusal: Refusal | None) -> None:
            current = self._recorder.current
            if refusal is None:
                current.answered(method, time.monotonic() - due)
                then(answer)
                return
            if excused is not None and excused() and refusal.code == 404:
                current.counts["excused"] += 1
            else:
                current.errors[method] += 1
                self._wrong("errors", f"{method}: {refusal}")
            if refused is not None:
                refused(refusal)

        if self.session is None:
            raise Ended(1006, "no session")
        self.session.post(protoo, method, data, answered)

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

    def give_up(self) -> None:
        """What is not answered by now never will be."""
        if self.session is not None:
            for method in self.session.waiting():
                self._wrong("unanswered", f"{method} has no answer")

    # --- small things -----------------------------------------------------------------------------------------

    def _key(self) -> Key:
        self._n += 1
        return Key(self.name, self._life, self._n)

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _wrong(self, kind: str, text: str) -> None:
        self._recorder.wrong(kind, f"{self._who}: {text}")


def _nothing(_: Any) -> None:
    pass
