"""One participant under faults: what it asks, what it is told, and what it therefore believes of its room."""

import asyncio
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from picows import WSError

from loadtest.client.ledger import Overflow
from loadtest.client.protoo import Ended, ProtooClient, Refusal, _Socket
from shared.protocol.client import MESSAGE, NOTIFICATION, REQUEST
from tests.support.peer import FINGERPRINT, audio

IN_FLIGHT = 48
"""Requests of one client without an answer, beyond which it only waits."""
MEDIA = frozenset({404, 503})
"""What a request about media may be answered with while nodes come and go."""
NONE: frozenset[int] = frozenset()

Then: TypeAlias = Callable[[Any], None]


@dataclass
class Asked:
    """One request, with everything that was ever answered to it."""

    at: float
    what: str
    refusals: frozenset[int]
    then: Then | None
    answers: list[float] = field(default_factory=list)
    over: bool = False
    """Its session ended before it was answered; why is counted there."""

    @property
    def waits(self) -> bool:
        return not self.answers and not self.over


@dataclass
class Heard:
    """The messages of one sender while both were there. `life` is the sender's; `whole`: we saw it begin."""

    sender: str
    life: int
    whole: bool
    numbers: list[tuple[int, float]] = field(default_factory=list)
    ended: str = ""
    """How it ended: `sender` or `receiver` went; nothing: it has not."""


@dataclass
class Consumer:
    source: str
    transport: int | None = None
    source_paused: bool = False
    paused: bool = False


@dataclass(frozen=True)
class Wrong:
    """Something that must not be. `kind` is what the report counts by."""

    at: float
    kind: str
    text: str


class Session(ProtooClient):
    """A client that shows every answer before anything that comes after it."""

    def __init__(self, *args: Any, on_answer: Callable[[dict[str, Any]], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self.at = ""
        """The gateway that it is connected to, or was last."""
        self._on_answer = on_answer

    async def _connect(self, url: str, query: dict[str, str]) -> _Socket:
        socket = await super()._connect(url, query)
        self.at = url
        return socket

    def _answered(self, frame: dict[str, Any]) -> None:
        self._on_answer(frame)
        super()._answered(frame)


class Participant:
    """`live` is to be a task, until `stop`; then `leave_for_good`."""

    def __init__(self, urls: list[str], room: str, name: str, seed: str, rate: float) -> None:
        self.room = room
        self.name = name
        self.wrong: list[Wrong] = []
        self.asked: list[Asked] = []
        self.heard: list[Heard] = []
        self.sent: dict[int, dict[int, float]] = {}
        """Broadcast messages by life: number → when."""
        self.left: set[int] = set()
        """Lives that ended with a `leave` that was answered."""
        self.told: dict[str, list[int]] = defaultdict(list)
        """Messages to one peer that were taken, by receiver."""
        self.told_by: dict[str, list[tuple[int, float]]] = defaultdict(list)
        """Messages to this one alone, by sender."""
        self.notifications: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.sessions: list[Session] = []
        self.lost_sessions = 0
        self.session: Session | None = None
        self.life = 0
        self.joined = False
        self.capabilities: dict[str, Any] = {}
        self.peers: set[str] = set()
        self.consumers: dict[int, Consumer] = {}
        self.transports: dict[int, str] = {}
        self.producers: dict[int, tuple[int, bool]] = {}
        """Its transport, and whether it is paused."""
        self._urls = urls
        self._random = random.Random(f"{seed}/{room}/{name}")
        self._rate = rate
        self._ids = itertools.count(1000)
        self._to: Counter[str] = Counter()
        self._open: dict[int, Asked] = {}
        self._last_answered = 0
        self._hearing: dict[str, Heard] = {}
        self._quiet = True
        self._stopping = False
        self._now = asyncio.get_running_loop().time

    # --- its life -----------------------------------------------------------------------------------------------

    async def live(self) -> None:
        while not self._stopping:
            try:
                if self.session is None or self.session.ended.done():
                    await self._open_session()
                await self._step()
            except (Ended, Overflow) as end:
                if isinstance(end, Overflow):
                    self._complain("unbounded", f"{end}")
                    await asyncio.sleep(1)
            await asyncio.sleep(self._random.expovariate(self._rate))

    async def chat(self) -> None:
        """Messages to the others beside whatever else it does, without waiting for answers."""
        while not self._stopping:
            await asyncio.sleep(self._random.expovariate(self._rate))
            if self._may_chat:
                self._say()

    def stop(self) -> None:
        self._stopping = True

    @property
    def in_flight(self) -> int:
        return len(self._open)

    @property
    def at(self) -> str:
        return self.session.at if self.session is not None and not self.session.ended.done() else ""

    async def leave_for_good(self) -> None:
        session = self.session
        if session is None or session.ended.done():
            return
        if self.joined:
            await self._leave()
        await self._close(session)

    async def barrier(self) -> None:
        """Returns when everything is here that was sent before."""
        if self.session is not None and not self.session.ended.done():
            await self._request("queryRoom", NONE)

    def probe(self) -> Asked | None:
        """Asks something now, so that it shows when things go on. None: there is nobody to ask."""
        if self.session is None or self.session.ended.done():
            return None
        _forget(self._ask(REQUEST, {"method": "queryRoom"}, "queryRoom", NONE))
        return self.asked[-1]

    def burst(self, count: int) -> None:
        """Says as much at once, or asks it while it may not speak."""
        for _ in range(count):
            if self._may_chat:
                self._say()
            elif self.in_flight < IN_FLIGHT:
                self.probe()

    async def _open_session(self) -> None:
        self._forget_room()
        self._last_answered = 0
        session = Session(
            self._random.choice(self._urls),
            self.room,
            self.name,
            urls=self._urls,
            on_notification=self._notified,
            on_answer=lambda frame: self._answered(session, frame),
        )
        try:
            await session.open()
        except (OSError, WSError, TimeoutError, Ended):
            self.counts["attempts without a session"] += 1
            await asyncio.sleep(0.2)
            raise Ended(0, "no session") from None
        self.sessions.append(session)
        self.session = session
        session.ended.add_done_callback(lambda ended: self._ended(session, ended.result()))

    async def _close(self, session: Session) -> None:
        self._give_up()
        self.session = None
        await session.close()

    def _ended(self, session: Session, why: Ended) -> None:
        if self.session is session:
            self.lost_sessions += 1
            self._complain("session", f"ended with {why.code} {why.reason}")
            self._give_up()

    def _give_up(self) -> None:
        for asked in self._open.values():
            asked.over = True
        self._open.clear()
        self._forget_room()

    def _forget_room(self) -> None:
        for hearing in self._hearing.values():
            hearing.ended = "receiver"
        self._hearing = {}
        self.joined, self._quiet = False, True
        self.peers, self.consumers, self.transports, self.producers = set(), {}, {}, {}

    # --- asking -------------------------------------------------------------------------------------------------

    def _ask(
        self, method: str, data: dict[str, Any], what: str, refusals: frozenset[int], then: Then | None = None
    ) -> "asyncio.Future[Any]":
        session = self.session
        if session is None:
            raise Ended(0, "no session")
        asked = Asked(self._now(), what, refusals, then)
        future = session.ask(data, method)
        self._open[next(reversed(session._waiting))] = asked
        self.asked.append(asked)
        return future

    async def _request(
        self, method: str, refusals: frozenset[int] = MEDIA, then: Then | None = None, **fields: Any
    ) -> Any:
        """The answer, or None for a refusal that may be."""
        try:
            return await self._ask(REQUEST, {"method": method, **fields}, method, refusals, then)
        except Refusal:
            return None

    async def _order(self, method: str, then: Then | None = None, **fields: Any) -> bool:
        """A notification of the specification, sent as a request, so that it is answered."""
        data = {"method": method, "notification": True, **fields}
        try:
            await self._ask(NOTIFICATION, data, method, MEDIA, then)
        except Refusal:
            return False
        return True

    def _answered(self, session: Session, frame: dict[str, Any]) -> None:
        now = self._now()
        if session is not self.session:
            return  # closed here: nobody waits for what was asked last
        asked = self._open.get(frame["id"])
        if asked is None:
            self._complain("duplicated", f"answer to request {frame['id']}, which is not open")
            return
        if frame["id"] < self._last_answered:
            self._complain("reordered", f"{asked.what} {frame['id']} answered after {self._last_answered}")
        self._last_answered = max(self._last_answered, frame["id"])
        del self._open[frame["id"]]
        asked.answers.append(now)
        if frame.get("ok"):
            self.counts[asked.what] += 1
            if asked.then is not None:
                asked.then(frame["data"])
        else:
            self.counts[f"{asked.what} {frame['errorCode']}"] += 1
            if frame["errorCode"] not in asked.refusals:
                self._complain("refused", f"{asked.what}: {frame['errorCode']} {frame['errorReason']}")

    # --- saying -------------------------------------------------------------------------------------------------

    @property
    def _may_chat(self) -> bool:
        session = self.session
        alive = session is not None and not session.ended.done()
        return alive and self.joined and not self._quiet and self.in_flight < IN_FLIGHT

    def _say(self) -> None:
        if self.peers and self._random.random() < 0.3:
            to = self._random.choice(sorted(self.peers))
            self._to[to] += 1
            n = self._to[to]
            data = {"to": to, "data": {"n": n}}
            _forget(self._ask(MESSAGE, data, "message to one", frozenset({404}), lambda _: self.told[to].append(n)))
            return
        mine = self.sent[self.life]
        n = len(mine) + 1
        mine[n] = self._now()
        _forget(self._ask(MESSAGE, {"data": {"life": self.life, "n": n}}, "message to all", NONE))

    # --- doing --------------------------------------------------------------------------------------------------

    async def _step(self) -> None:
        """The next thing, by chance."""
        if not self.joined:
            await self._join()
            return
        while self.in_flight >= IN_FLIGHT:
            await asyncio.sleep(0.05)
        if self._random.random() < 0.04:
            await self._leave()
            if self._random.random() < 0.4 and (session := self.session) is not None:
                await self._close(session)
            return
        await self._random.choice(self._possible())()

    def _possible(self) -> list[Callable[[], Any]]:
        send = self._transport("send")
        recv = self._transport("recv")
        if send is None:
            return [lambda: self._create_transport("send")]
        if recv is None:
            return [lambda: self._create_transport("recv")]
        things: list[Callable[[], Any]] = [lambda: self._request("queryRoom", NONE)]
        if len(self.producers) < 2:
            things += [lambda: self._produce(send)] * 4
        for producer, (_, paused) in self.producers.items():
            things.append(lambda it=producer, to=not paused: self._pause_producer(it, to))
        if self.producers:
            things.append(lambda: self._close_producer(self._random.choice(sorted(self.producers))))
        for id_, consumer in self.consumers.items():
            if consumer.transport is None:
                things += [lambda it=id_: self._enable(it, recv)] * 2
            else:
                things.append(lambda it=id_, to=not consumer.paused: self._pause_consumer(it, to))
        if self._random.random() < 0.05:
            things = [lambda: self._close_transport(self._random.choice([send, recv]))]
        return things

    def _transport(self, direction: str) -> int | None:
        return next((id_ for id_, way in self.transports.items() if way == direction), None)

    async def _join(self) -> None:
        if not self.capabilities:
            room = await self._request("queryRoom", NONE)
            self.capabilities = room["rtpCapabilities"]
        self.life += 1
        life = {"life": self.life}
        await self._request(
            "join", NONE, self._has_joined, peerName=self.name, rtpCapabilities=self.capabilities, appData=life
        )

    def _has_joined(self, answer: Any) -> None:
        self.sent[self.life] = {}
        self.joined, self._quiet = True, False
        for peer in answer["peers"]:
            self._see(peer["name"], peer["appData"]["life"], whole=False)
            for consumer in peer["consumers"]:
                self._add_consumer(consumer)

    async def _leave(self) -> None:
        self._quiet = True
        await self._order("leave", self._has_left)

    def _has_left(self, _: Any) -> None:
        self.left.add(self.life)
        self._forget_room()

    async def _create_transport(self, direction: str) -> None:
        id_ = next(self._ids)
        then = lambda _: self.transports.__setitem__(id_, direction)  # noqa: E731
        more = {"dtlsParameters": FINGERPRINT} if direction == "send" else {}
        await self._request(
            "createTransport", frozenset({503}), then, id=id_, direction=direction, options={}, **more
        )
        if direction == "recv" and id_ in self.transports:
            await self._order("updateTransport", id=id_, dtlsParameters=FINGERPRINT)

    async def _close_transport(self, id_: int) -> None:
        await self._order("closeTransport", lambda _: self._drop_transport(id_), id=id_)

    def _drop_transport(self, id_: int) -> None:
        del self.transports[id_]
        self.producers = {it: (where, paused) for it, (where, paused) in self.producers.items() if where != id_}
        for consumer in self.consumers.values():
            if consumer.transport == id_:
                consumer.transport = None

    async def _produce(self, transport: int) -> None:
        id_ = next(self._ids)
        paused = self._random.random() < 0.3
        then = lambda _: self.producers.__setitem__(id_, (transport, paused))  # noqa: E731
        about = {"kind": "audio", "transportId": transport, "rtpParameters": audio(id_), "paused": paused}
        await self._request("createProducer", MEDIA, then, id=id_, **about)

    async def _pause_producer(self, id_: int, paused: bool) -> None:
        def then(_: Any) -> None:
            self.producers[id_] = (self.producers[id_][0], paused)

        await self._order("pauseProducer" if paused else "resumeProducer", then, id=id_)

    async def _close_producer(self, id_: int) -> None:
        await self._order("closeProducer", lambda _: self.producers.pop(id_, None), id=id_)

    async def _enable(self, id_: int, transport: int) -> None:
        def then(answer: Any) -> None:
            if (consumer := self.consumers.get(id_)) is None:
                self._complain("unlike", f"consumer {id_} enabled after it was closed")
                return
            consumer.transport, consumer.source_paused = transport, answer["paused"]

        await self._request("enableConsumer", MEDIA, then, id=id_, transportId=transport)

    async def _pause_consumer(self, id_: int, paused: bool) -> None:
        def then(_: Any) -> None:
            self.consumers[id_].paused = paused

        await self._order("pauseConsumer" if paused else "resumeConsumer", then, id=id_)

    # --- being told ---------------------------------------------------------------------------------------------

    def _notified(self, method: str, data: Any) -> None:
        now = self._now()
        if method == MESSAGE:
            self.notifications["message"] += 1
            self._hear(data["from"], data["data"], now)
            return
        what = data["method"] if method == NOTIFICATION else method
        self.notifications[what] += 1
        match what:
            case "newPeer":
                if data["name"] in self.peers:
                    self._complain("duplicated", f"newPeer {data['name']}, who is there")
                self._see(data["name"], data["appData"]["life"], whole=True)
            case "peerClosed":
                self._unsee(data["name"])
            case "newConsumer":
                self._add_consumer(data)
            case "consumerClosed":
                if self.consumers.pop(data["id"], None) is None:
                    self._complain("unlike", f"consumerClosed {data['id']}, which is not there")
            case "consumerPaused" | "consumerResumed":
                if data["id"] in self.consumers:
                    self.consumers[data["id"]].source_paused = what == "consumerPaused"
                else:
                    self._complain("unlike", f"{what} {data['id']}, which is not there")
            case "transportClosed":
                if data["id"] in self.transports:
                    self._drop_transport(data["id"])
                else:
                    self._complain("unlike", f"transportClosed {data['id']}, which is not there")
            case "consumerEffectiveProfileChanged" | "consumerPreferredProfileSet":
                pass
            case _:
                self._complain("unlike", f"{what} {data!r:.200}, which nothing here leads to")

    def _add_consumer(self, told: dict[str, Any]) -> None:
        if told["id"] in self.consumers:
            self._complain("duplicated", f"newConsumer {told['id']}, which is there")
        if told["peerName"] not in self.peers:
            self._complain("unlike", f"newConsumer {told['id']} of {told['peerName']}, who is not there")
        self.consumers[told["id"]] = Consumer(told["peerName"], source_paused=told["paused"])

    def _see(self, peer: str, life: int, *, whole: bool) -> None:
        self.peers.add(peer)
        self._hearing[peer] = hearing = Heard(peer, life, whole)
        self.heard.append(hearing)

    def _unsee(self, peer: str) -> None:
        if peer not in self.peers:
            self._complain("unlike", f"peerClosed {peer}, who is not there")
            return
        self.peers.discard(peer)
        self._hearing.pop(peer).ended = "sender"
        self.consumers = {id_: it for id_, it in self.consumers.items() if it.source != peer}

    def _hear(self, sender: str, said: dict[str, int], now: float) -> None:
        if "life" not in said:
            self.told_by[sender].append((said["n"], now))
            return
        hearing = self._hearing.get(sender)
        if hearing is None or hearing.life != said["life"]:
            self._complain("reordered", f"message {said} of {sender}, who is not there")
            return
        hearing.numbers.append((said["n"], now))

    def _complain(self, kind: str, text: str) -> None:
        self.wrong.append(Wrong(self._now(), kind, f"{self.room}/{self.name}: {text}"))


def _forget(answer: "asyncio.Future[Any]") -> None:
    """Whatever comes of it is recorded where it arrives."""
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
