"""A room without Redis, broker and media node: bus items in, decoded frames out, faults at will.

`World` stands for everything around a `Executor`: it stores what is committed, keeps the committed messages as the
stream does, answers media requests when and how the test says, and can crash and load the room again.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from roomworker.core.limits import Limits
from roomworker.core.room import Answered, Changes, Reply, Room
from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES
from roomworker.core.sessions import Gone
from roomworker.counters import Counts
from roomworker.runtime.executor import Executor, OnResult
from roomworker.runtime.session_queue import Defect, Identity, Job, RoomItem
from roomworker.storage.loader import load
from shared.protocol import bus, client, media
from shared.protocol.rtp import DtlsParameters, Fingerprint, IceCandidate, IceParameters

Json = dict[str, Any]

CAPABILITIES: Json = msgspec.to_builtins(DEFAULT_ROOM_CAPABILITIES)
AUDIO_ONLY: Json = {
    "codecs": [codec for codec in CAPABILITIES["codecs"] if codec["kind"] == "audio"],
    "headerExtensions": [],
}
NO_CODECS: Json = {"codecs": [], "headerExtensions": []}
DTLS: Json = {"fingerprints": [{"algorithm": "sha-256", "value": "AA:BB"}], "role": "client"}

OPUS: Json = {
    "codecs": [{"name": "opus", "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": 2}],
    "encodings": [{"ssrc": 1111}],
    "rtcp": {"cname": "a-cname"},
}
VP8: Json = {
    "codecs": [{"name": "VP8", "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000}],
    "encodings": [{"ssrc": 2001, "profile": "high"}, {"ssrc": 2002, "profile": "low"}],
    "rtcp": {"cname": "a-cname"},
}

NODE = "node"
GATEWAY = "gateway"


def result_of(request: media.AnyRequest) -> media.AnyResult:
    """What a media node would answer if all went well."""
    match request:
        case media.CreateTransport():
            return media.TransportCreated(
                ice_parameters=IceParameters("fragment", "password", ice_lite=True),
                ice_candidates=[IceCandidate("1", 1, "192.0.2.1", "udp", 40000, "host")],
                dtls_parameters=DtlsParameters([Fingerprint("sha-256", "CC:DD")]),
            )
        case media.ConnectTransport():
            return media.TransportConnected("server")
        case media.RestartIce(generation=generation):
            return media.IceRestarted(IceParameters(f"fragment{generation}", "password", ice_lite=True))
        case media.Produce() | media.UpdateProducer():
            return media.Produced()
        case media.Consume():
            return media.Consumed("default")
        case media.GetStats():
            return media.Stats([])


@dataclass(eq=False)
class Asked:
    """A media request under way."""

    node: str
    request: media.AnyRequest
    on_result: OnResult


@dataclass
class Sent:
    """One output of a session, as the stream keeps it."""

    out: int
    body: bytes
    close: int

    @property
    def frame(self) -> Json:
        frame: Json = json.loads(self.body)
        return frame


class World:
    """Implements `roomworker.runtime.executor.Shell`.

    With `prompt` everything happens at once: media requests succeed, changes are committed. Without, the test says
    when. Jobs whose effect is not committed are done again after a crash, as a actor does.
    """

    def __init__(self, name: str = "room", *, prompt: bool = True) -> None:
        self.name = name
        self.prompt = prompt
        self.node: str | None = NODE
        self.asked: list[Asked] = []
        self.requests: list[media.AnyRequest] = []
        self.reports: list[tuple[str, bus.Applied]] = []
        self.orders: list[media.AnyOrder] = []
        self.fields: dict[str, bytes] = {}
        self.gone: dict[str, Gone] = {}
        self.answered: dict[str, Answered] = {}
        self.answers: list[tuple[str, bus.CallAnswer]] = []
        self.links: list[tuple[str, bus.Link]] = []
        self.limits = Limits()
        self.counts = Counts()
        self.n = 0
        self.stream: dict[str, list[Sent]] = {}
        self.pending: tuple[Changes, list[Job]] | None = None
        self.poisoned: set[Identity] = set()
        self.jobs: dict[Job, None] = {}
        self.done_items: list[bus.AnyItem] = []
        self.defects: list[BaseException | None] = []
        self.observers: list[Callable[[Changes], None]] = []
        self._sessions = 0
        self.executor = self._load()

    @property
    def room(self) -> Room:
        return self.executor.room

    # --- the executor's shell -----------------------------------------------------------------------------------

    def choose_node(self) -> str | None:
        return self.node

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None:
        self.asked.append(Asked(node, request, on_result))
        self.requests.append(request)

    def report(self, gateway: str, applied: bus.Applied) -> None:
        self.reports.append((gateway, applied))

    def done(self, job: Job) -> None:
        if job in self.jobs:
            del self.jobs[job]
            self.poisoned.discard(job.identity)
            job.done()

    # --- given ------------------------------------------------------------------------------------------------

    def client(self, peer: str, **more: Any) -> "Client":
        """A client with a session that is not connected yet."""
        self._sessions += 1
        return Client(self, peer, f"{GATEWAY}.{self._sessions}", self._sessions, **more)

    def connected(self, peer: str, **more: Any) -> "Client":
        it = self.client(peer, **more)
        it.connect()
        return it

    def joined(self, peer: str, capabilities: Json = CAPABILITIES, **more: Any) -> "Client":
        it = self.connected(peer)
        assert it.ask("join", peerName=peer, rtpCapabilities=capabilities, **more)["ok"], it.frames[-1]
        return it

    def joined_slowly(self, peer: str) -> "Client":
        """Joined and committed, in a world that is not prompt."""
        it = self.connected(peer)
        it.request("join", peerName=peer, rtpCapabilities=CAPABILITIES)
        self.commit()
        return it

    def sending(self, peer: str, capabilities: Json = CAPABILITIES) -> "Client":
        """Joined, with transport 1 to send."""
        it = self.joined(peer, capabilities)
        assert it.ask("createTransport", id=1, direction="send", dtlsParameters=DTLS)["ok"]
        return it

    def receiving(self, peer: str, capabilities: Json = CAPABILITIES) -> "Client":
        """Joined, with transport 2 to receive."""
        it = self.joined(peer, capabilities)
        assert it.ask("createTransport", id=2, direction="recv")["ok"]
        return it

    # --- when -------------------------------------------------------------------------------------------------

    def receive(self, item: RoomItem, origin: str = GATEWAY) -> Job:
        job = Job(item, origin, lambda: self.done_items.append(item))
        self.jobs[job] = None
        self._feed(job)
        self._go_on()
        return job

    def event(self, event: media.AnyEvent, *, n: int = 1, node: str = NODE, epoch: int | None = None) -> None:
        epoch = self.room.meta.epochs if epoch is None else epoch
        encoded = media.encode_event(event)
        self.receive(bus.MediaEvent(self.name, self.room.incarnation, epoch, node, n, encoded), node)

    def answer(self, result: media.AnyResult | None = None, at: int = 0) -> media.AnyRequest:
        """Answers a request under way, by default the oldest, and that it worked."""
        asked = self.asked.pop(at)
        try:
            asked.on_result(result or result_of(asked.request))
        except Defect as defect:
            self._failed(defect)
        self._go_on()
        return asked.request

    def fail(self, code: int = 503, reason: str = "no", at: int = 0) -> media.AnyRequest:
        return self.answer(media.Failed(code, reason), at)

    def act(self, call: Callable[[Executor], None]) -> None:
        """Something that comes from time or from other processes' death."""
        call(self.executor)
        self._go_on()

    def tick(self, seconds: float) -> None:
        """The partition's time."""
        self.act(lambda executor: executor.tick(round(seconds * 1000)))

    def take(self) -> bool:
        """Begins a commit."""
        if self.pending is not None or not self.executor.changed:
            return False
        self.pending = self.executor.take()
        return True

    def store(self) -> None:
        """The commit under way is in Redis; the worker may still die before it hears so."""
        assert self.pending is not None
        changes, _ = self.pending
        self.n = changes.n
        for name, record in changes.fields.items():
            if record is None:
                self.fields.pop(name, None)
            else:
                self.fields[name] = record
        for session, gone in changes.gone.items():
            if gone is None:
                self.gone.pop(session, None)
            else:
                self.gone[session] = gone
        for key, answer in changes.answered.items():
            if answer is None:
                self.answered.pop(key, None)
            else:
                self.answered[key] = answer
        for message in changes.messages:
            for receiver, out in message.to:
                self.stream.setdefault(receiver.id, []).append(Sent(out, message.body, message.close))
        for observer in self.observers:
            observer(changes)

    def finish(self) -> None:
        """The worker hears that its commit is in: orders and messages go out, jobs are done."""
        assert self.pending is not None
        (changes, jobs), self.pending = self.pending, None
        self.executor.committed(changes)
        self.orders += [order for _, order in changes.orders]
        self._take_replies(changes.replies)
        for job in jobs:
            self.done(job)

    def commit(self) -> None:
        """Commits until nothing is left to commit."""
        while self.take():
            self.store()
            self.finish()
        self._take_replies(self.executor.take_replies())
        for job in self.executor.take_finished():
            self.done(job)

    def _take_replies(self, replies: Iterable[tuple[str, Reply]]) -> None:
        for gateway, reply in replies:
            if isinstance(reply, bus.Link):
                self.links.append((gateway, reply))
            else:
                self.answers.append((gateway, reply))

    def crash(self) -> None:
        """Another worker takes over; what was not committed is delivered to it again."""
        self.executor.stop()
        self.pending = None
        self.asked.clear()
        self.poisoned.clear()
        self._reload()

    def _go_on(self) -> None:
        if not self.prompt:
            return
        while self.asked:
            self.answer()
        self.commit()

    def _feed(self, job: Job) -> None:
        try:
            self.executor.receive(job)
        except Defect as defect:
            self._failed(defect)

    def _failed(self, defect: Defect) -> None:
        self.defects.append(defect.__cause__)
        self.poisoned.add(defect.job.identity)
        self.executor.stop()
        self._reload()

    def _load(self) -> Executor:
        room = load(self.name, 0, "incarnation", self.n, self.fields, self.gone, self.answered, self.limits)
        return Executor(room, self, self.poisoned)

    def _reload(self) -> None:
        executor = self.executor = self._load()
        for job in list(self.jobs):
            if self.executor is executor:
                self._feed(job)

    # --- then -------------------------------------------------------------------------------------------------

    def reloaded(self) -> Room:
        return load(self.name, 0, "incarnation", self.n, self.fields, self.gone, self.answered, self.limits)


@dataclass(eq=False)
class Client:
    """A client behind a gateway that numbers and publishes its frames."""

    world: World
    peer: str
    session: str
    connection: int
    accepted: int = 0
    gateway: str = GATEWAY
    n: int = 0
    ids: int = 0
    items: list[bus.SessionItem] = field(default_factory=list)
    token: str = ""

    def __post_init__(self) -> None:
        self.accepted = self.accepted or self.connection

    # --- frames and items -------------------------------------------------------------------------------------

    def connect_item(self) -> bus.Connect:
        item = bus.Connect(self.world.name, self.session, self.connection, self.peer, self.accepted, self.token)
        self.items.append(item)
        return item

    def input(self, method: str, id_: int | None, data: bytes) -> bus.Input:
        self.n += 1
        item = bus.Input(self.world.name, self.session, self.connection, self.n, method, id_, data)
        self.items.append(item)
        return item

    def request_item(self, method: str, **data: Any) -> bus.Input:
        self.ids += 1
        body = json.dumps({"method": method, **data}).encode()
        return self.input(client.REQUEST, self.ids, body)

    def notification_item(self, method: str, **data: Any) -> bus.Input:
        body = json.dumps({"method": method, "notification": True, **data}).encode()
        return self.input(client.NOTIFICATION, None, body)

    def disconnect_item(self) -> bus.Disconnect:
        self.n += 1
        item = bus.Disconnect(self.world.name, self.session, self.connection, self.n)
        self.items.append(item)
        return item

    # --- when -------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.world.receive(self.connect_item(), self.gateway)

    def disconnect(self) -> None:
        self.world.receive(self.disconnect_item(), self.gateway)

    def request(self, method: str, **data: Any) -> int:
        """Sends a request; its id."""
        item = self.request_item(method, **data)
        self.world.receive(item, self.gateway)
        assert item.id is not None
        return item.id

    def ask(self, method: str, **data: Any) -> Json:
        """Sends a request; its answer."""
        answer = self.answer(self.request(method, **data))
        assert answer is not None
        return answer

    def notify(self, method: str, **data: Any) -> None:
        self.world.receive(self.notification_item(method, **data), self.gateway)

    def notify_asking(self, method: str, **data: Any) -> Json:
        """Sends a notification as a request, as older clients do; its answer."""
        self.ids += 1
        body = json.dumps({"method": method, "notification": True, **data}).encode()
        item = self.input(client.NOTIFICATION, self.ids, body)
        self.world.receive(item, self.gateway)
        answer = self.answer(self.ids)
        assert answer is not None
        return answer

    def produce(self, id_: int = 10, kind: str = "audio", **more: Any) -> int:
        """Sends a stream over transport 1; the id of its consumers."""
        parameters = OPUS if kind == "audio" else VP8
        message = {"id": id_, "kind": kind, "transportId": 1, "rtpParameters": parameters, **more}
        answer = self.ask("createProducer", **message)
        assert answer["ok"], answer
        return self.world.room.peers[self.peer].producers[id_].number

    def enable(self, consumer: int, **more: Any) -> Json:
        return self.ask("enableConsumer", id=consumer, transportId=2, **more)

    # --- then -------------------------------------------------------------------------------------------------

    @property
    def sent(self) -> list[Sent]:
        return self.world.stream.get(self.session, [])

    @property
    def frames(self) -> list[Json]:
        return [sent.frame for sent in self.sent if not sent.close]

    @property
    def closed(self) -> int | None:
        """The close code the socket was closed with."""
        codes = [sent.close for sent in self.sent if sent.close]
        return codes[-1] if codes else None

    def answers(self, id_: int) -> list[Json]:
        return [frame for frame in self.frames if frame.get("response") and frame["id"] == id_]

    def answer(self, id_: int) -> Json | None:
        answers = self.answers(id_)
        assert len(answers) <= 1, "answered twice"
        return answers[0] if answers else None

    @property
    def notifications(self) -> list[Json]:
        return [frame["data"] for frame in self.frames if frame.get("notification")]

    @property
    def methods(self) -> list[str]:
        return [notification["method"] for notification in self.notifications]

    def told(self, method: str) -> list[Json]:
        """The notifications of that method, without what all of them have."""
        return [
            {key: value for key, value in data.items() if key not in ("method", "target", "notification")}
            for data in self.notifications
            if data["method"] == method
        ]

    def hush(self) -> None:
        """Forgets what was sent so far."""
        self.sent.clear()


def snapshot(room: Room) -> dict[str, Any]:
    """Everything a room knows, by the names of its records, and its derived indexes."""
    encode = msgspec.json.encode
    records: dict[str, Any] = {"meta": encode(room.meta)}
    for session in room.sessions.values():
        records[session.field] = encode(session)
    for peer in room.peers.values():
        records[peer.field] = encode(peer.data)
        for kind, objects in _objects(peer):
            for id_, record in objects.items():
                records[f"{kind}|{id_}|{peer.name}"] = encode(record)
    return records


def indexes(room: Room) -> dict[str, Any]:
    """What is derived from the records, in comparable form."""
    return {
        "peers": list(room.peers),
        "session_of": {name: session.id for name, session in room.session_of.items()},
        "sessions": sorted(room.sessions),
        "sources": {number: (peer.name, source.id) for number, (peer, source) in room.sources.items()},
        "engines": {engine: (peer.name, fed.id) for engine, (peer, fed) in room.consumers_by_engine.items()},
        "gone": room.gone,
        "n": room.n,
    }


def _objects(peer: Any) -> Iterable[tuple[str, Mapping[int, Any]]]:
    return (("transport", peer.transports), ("producer", peer.producers), ("consumer", peer.consumers))


def error_of(answer: Json) -> tuple[int, str]:
    return answer["errorCode"], answer["errorReason"]
