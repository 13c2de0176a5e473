"""A room without Redis, broker and media node: bus items in, decoded frames out, faults when the test wants them.

`RoomHarness` stands for everything around an `Executor`: it stores what is committed, keeps the committed messages as
the stream does, answers media requests when and how the test says, and can crash and load the room again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from roomworker.core.journal import Changes, Reply
from roomworker.core.limits import Limits
from roomworker.core.model import ClosedSession, StoredAnswer
from roomworker.core.room import Room
from roomworker.counters import Counters
from roomworker.runtime.executor import Executor, OnResult
from roomworker.runtime.session_queue import Defect, Identity, Job, RoomItem
from roomworker.storage.loader import load
from shared.protocol import bus, media
from shared.protocol.rtp import DtlsParameters, Fingerprint, IceCandidate, IceParameters
from tests.unit.roomworker.harness_client import GATEWAY, Client, Sent
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS, Json

NODE = "node"


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


class RoomHarness:
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
        self.closed_sessions: dict[str, ClosedSession] = {}
        self.answered_calls: dict[str, StoredAnswer] = {}
        self.answers: list[tuple[str, bus.CallAnswer]] = []
        self.links: list[tuple[str, bus.Link]] = []
        self.limits = Limits()
        self.counters = Counters()
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
        """Joined and committed, in a harness that is not prompt."""
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
        for session, gone in changes.closed_sessions.items():
            if gone is None:
                self.closed_sessions.pop(session, None)
            else:
                self.closed_sessions[session] = gone
        for key, answer in changes.answered_calls.items():
            if answer is None:
                self.answered_calls.pop(key, None)
            else:
                self.answered_calls[key] = answer
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
        room = load(
            self.name, 0, "incarnation", self.n, self.fields, self.closed_sessions, self.answered_calls, self.limits
        )
        return Executor(room, self, self.poisoned)

    def _reload(self) -> None:
        executor = self.executor = self._load()
        for job in list(self.jobs):
            if self.executor is executor:
                self._feed(job)

    # --- then -------------------------------------------------------------------------------------------------

    def reloaded(self) -> Room:
        return load(
            self.name, 0, "incarnation", self.n, self.fields, self.closed_sessions, self.answered_calls, self.limits
        )
