"""A server in memory with any latency, and a clock that jumps: what the generator does in minutes takes a moment."""

import asyncio
import itertools
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadtest.client.ledger import Ledger
from loadtest.client.protoo import Answered, Ended, Hooks, Refusal
from shared.protocol.client import MESSAGE, NOTIFICATION, REQUEST


class Clock(selectors.SelectSelector):
    """The time of an event loop, which passes only while the loop waits, and then at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everybody waits, and nothing is due")
        self.now += max(0.0, timeout)
        return super().select(0)

    def stand_still(self, seconds: float) -> None:
        """Passes without the event loop running."""
        self.now += seconds


def run(clock: Clock, work: Callable[[], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    loop = asyncio.SelectorEventLoop(clock)
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


@dataclass
class Producer:
    appdata: Any
    kind: str
    paused: bool = False
    consumers: dict[str, int] = field(default_factory=dict)
    """By receiver."""


@dataclass
class Member:
    client: "FakeClient"
    appdata: Any
    producers: dict[int, Producer] = field(default_factory=dict)
    offered: dict[int, Producer] = field(default_factory=dict)
    """By consumer."""
    enabled: set[int] = field(default_factory=set)


class FakeServer:
    """`latency` is from a request to its answer, seconds.

    `refuse` maps a method and the number of its request to the code of an error answer.
    """

    def __init__(self, latency: float, grace: float = 15.0) -> None:
        self.latency = latency
        self.grace = grace
        self.refuse: dict[tuple[str, int], int] = {}
        self.seen: dict[str, int] = {}
        self.rooms: dict[str, dict[str, Member]] = {}
        self.clients: list[FakeClient] = []
        self._consumers = itertools.count(1)

    def client(self, url: str, room: str, peer: str, *, urls: Any = (), hooks: Hooks) -> "FakeClient":
        client = FakeClient(self, url, room, peer, hooks)
        self.clients.append(client)
        return client

    def end_sessions(self, room: str) -> None:
        """Ends all sessions of a room; the server keeps their peers for the grace."""
        for client in self.clients:
            if client.room == room and not client.ended.done():
                client.finish(Ended(1006, "lost"))
                asyncio.get_running_loop().call_later(self.grace, self._expire, client)

    def _expire(self, client: "FakeClient") -> None:
        member = self.rooms.get(client.room, {}).get(client.peer)
        if member is not None and member.client is client:
            self._remove(client.room, client.peer, silent=member.appdata is None)

    def handle(self, client: "FakeClient", method: str, data: dict[str, Any]) -> Any:
        """Returns the answer. Raises `Refusal`."""
        what = "message" if method == MESSAGE else data["method"]
        self.seen[what] = self.seen.get(what, 0) + 1
        if code := self.refuse.get((what, self.seen[what])):
            raise Refusal(code, "refused by the test")
        room = self.rooms.setdefault(client.room, {})
        if what == "queryRoom":
            return {"rtpCapabilities": {}}
        if what == "join":
            return self._join(client, data)
        member = room.get(client.peer)
        if member is None or member.client is not client:
            raise Refusal(403, "not joined")
        handler: Callable[[FakeClient, Member, dict[str, Any]], Any] = getattr(self, f"_{what}", self._nothing)
        return handler(client, member, data)

    def _join(self, client: "FakeClient", data: dict[str, Any]) -> Any:
        room = self.rooms[client.room]
        if client.peer in room:
            self._remove(client.room, client.peer)
        peers = [{"name": name, "appData": it.appdata, "consumers": []} for name, it in room.items()]
        if data.get("spy"):
            room[client.peer] = Member(client, None)
            for peer in peers:
                peer["consumers"] = [
                    self._described(peer["name"], 0, it) for it in room[peer["name"]].producers.values()
                ]
            return {"peers": peers}
        member = Member(client, data["appData"])
        for peer in peers:
            for producer in room[peer["name"]].producers.values():
                peer["consumers"].append(self._offer(client.peer, member, peer["name"], producer))
        self._tell(client.room, client.peer, "newPeer", name=client.peer, appData=data["appData"])
        room[client.peer] = member
        return {"peers": peers}

    def _leave(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:
        self._remove(client.room, client.peer, silent=member.appdata is None, appData=data.get("appData"))

    def _message(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:
        message = {"from": client.peer, "data": data["data"]}
        room = self.rooms[client.room]
        if (to := data.get("to")) is None:
            for name, other in room.items():
                if name != client.peer and other.appdata is not None:
                    other.client.receive(MESSAGE, message)
        elif to in room:
            room[to].client.receive(MESSAGE, message)
        else:
            raise Refusal(404, "no such peer")

    def _createProducer(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:  # noqa: N802
        producer = member.producers[data["id"]] = Producer(data["appData"], data["kind"])
        for name, other in self.rooms[client.room].items():
            if name != client.peer and other.appdata is not None:
                self._send(other, "newConsumer", **self._offer(name, other, client.peer, producer))

    def _closeProducer(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:  # noqa: N802
        producer = member.producers.pop(data["id"])
        for name, id_ in producer.consumers.items():
            other = self.rooms[client.room].get(name)
            if other is not None and other.offered.pop(id_, None) is not None:
                other.enabled.discard(id_)
                self._send(other, "consumerClosed", id=id_)

    def _pauseProducer(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:  # noqa: N802
        self._pause(client, member.producers[data["id"]], paused=True)

    def _resumeProducer(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:  # noqa: N802
        self._pause(client, member.producers[data["id"]], paused=False)

    def _pause(self, client: "FakeClient", producer: Producer, *, paused: bool) -> None:
        if producer.paused is paused:
            return
        producer.paused = paused
        for name, id_ in producer.consumers.items():
            other = self.rooms[client.room].get(name)
            if other is not None and id_ in other.enabled:
                self._send(other, "consumerPaused" if paused else "consumerResumed", id=id_)

    def _enableConsumer(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:  # noqa: N802
        if data["id"] not in member.offered:
            raise Refusal(404, "no such consumer")
        member.enabled.add(data["id"])
        return {"paused": member.offered[data["id"]].paused}

    def _pauseConsumer(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:  # noqa: N802
        if data["id"] not in member.offered:
            raise Refusal(404, "no such consumer")

    _resumeConsumer = _setConsumerPreferredProfile = _pauseConsumer  # noqa: N815

    def _nothing(self, client: "FakeClient", member: Member, data: dict[str, Any]) -> Any:
        return {}

    def _offer(self, name: str, receiver: Member, source: str, producer: Producer) -> dict[str, Any]:
        id_ = producer.consumers[name] = next(self._consumers)
        receiver.offered[id_] = producer
        return self._described(source, id_, producer)

    def _described(self, source: str, id_: int, producer: Producer) -> dict[str, Any]:
        about = {"kind": producer.kind, "paused": producer.paused, "appData": producer.appdata}
        return {"id": id_, "peerName": source, **about}

    def _remove(self, room: str, name: str, *, silent: bool = False, **fields: Any) -> None:
        member = self.rooms[room].pop(name)
        for producer in member.producers.values():
            for other, id_ in producer.consumers.items():
                if other in self.rooms[room]:
                    self.rooms[room][other].offered.pop(id_, None)
                    self.rooms[room][other].enabled.discard(id_)
        if not silent:
            self._tell(room, name, "peerClosed", name=name, **{k: v for k, v in fields.items() if v is not None})

    def _tell(self, room: str, but: str, what: str, **fields: Any) -> None:
        for name, member in self.rooms[room].items():
            if name != but and member.appdata is not None:
                self._send(member, what, **fields)

    def _send(self, member: Member, what: str, **fields: Any) -> None:
        member.client.receive(NOTIFICATION, {"method": what, **fields})


class FakeClient:
    """Looks to a participant like a `ProtooClient`. Both directions keep their order."""

    def __init__(self, server: FakeServer, url: str, room: str, peer: str, hooks: Hooks) -> None:
        self.url, self.room, self.peer = url, room, peer
        self.ledger = Ledger()
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._server = server
        self._hooks = hooks
        self._open: dict[int, tuple[str, Answered]] = {}
        self._ids = itertools.count(1)
        self._up: deque[Callable[[], None]] = deque()
        self._down: deque[Callable[[], None]] = deque()

    async def open(self) -> "FakeClient":
        return self

    @property
    def connected(self) -> bool:
        return not self.ended.done()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def unanswered(self) -> list[str]:
        return [what for what, _ in self._open.values()]

    def drop_connection(self) -> None:
        """Does nothing: a fake session continues over another connection at once."""

    def post(self, data: Any, then: Answered, method: str = REQUEST, what: str = "") -> None:
        if self.ended.done():
            raise self.ended.result()
        id_ = next(self._ids)
        self._open[id_] = (what, then)

        def apply() -> None:
            answer: Any = None
            failure: Refusal | None = None
            try:
                answer = self._server.handle(self, method, data)
            except Refusal as refusal:
                failure = refusal
            self._later(self._down, lambda: self._answer(id_, answer, failure))

        self._later(self._up, apply)

    def receive(self, method: str, data: Any) -> None:
        self._later(self._down, lambda: self._notify(method, data))

    def _later(self, line: "deque[Callable[[], None]]", what: Callable[[], None]) -> None:
        line.append(what)
        asyncio.get_running_loop().call_later(self._server.latency / 2, lambda: line.popleft()())

    def _answer(self, id_: int, answer: Any, failure: Refusal | None) -> None:
        if id_ in self._open:
            _, then = self._open.pop(id_)
            self._guarded(lambda: then(answer, failure))

    def _notify(self, method: str, data: Any) -> None:
        notified = self._hooks.notified
        if not self.ended.done() and notified is not None:
            self._guarded(lambda: notified(method, data))

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - as the client does
            assert self._hooks.failed is not None
            self._hooks.failed(error)

    async def close(self) -> None:
        """The server hears of it at once, and ends the session."""
        self._server._expire(self)
        await asyncio.sleep(self._server.latency)
        await self.abort()

    async def abort(self) -> None:
        self.finish(Ended(1000, "closed here"))

    def finish(self, why: Ended) -> None:
        if self.ended.done():
            return
        self.ended.set_result(why)
        unanswered, self._open = self._open, {}
        for _, then in unanswered.values():
            then(None, why)
