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
from tests.unit.roomworker.harness_client import GATEWAY, Client, Output
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS, Json

NODE = "node"


def result_of(request: media.AnyRequest) -> media.AnyResult:
    """The result of a media node on which everything works."""
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
class PendingRequest:
    """A media request that is not answered yet."""

    node: str
    request: media.AnyRequest
    on_result: OnResult


class RoomHarness:
    """Implements `roomworker.runtime.executor.Shell`.

    With `prompt` everything happens at once: media requests succeed, changes are committed. Without, the test decides
    when. Jobs whose effect is not committed are done again after a crash, as by a `RoomActor`.
    """

    def __init__(self, name: str = "room", *, prompt: bool = True) -> None:
        self.name = name
        self.prompt = prompt
        self.node: str | None = NODE
        self.pending_requests: list[PendingRequest] = []
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
        self.stream: dict[str, list[Output]] = {}
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
        self.pending_requests.append(PendingRequest(node, request, on_result))
        self.requests.append(request)

    def report(self, gateway: str, applied: bus.Applied) -> None:
        self.reports.append((gateway, applied))

    def done(self, job: Job) -> None:
        if job in self.jobs:
            del self.jobs[job]
            self.poisoned.discard(job.identity)
            job.done()

    # --- given ------------------------------------------------------------------------------------------------

    def client(self, peer: str, **more: Any) -> Client:
        """A client with a session that is not connected yet."""
        self._sessions += 1
        return Client(self, peer, f"{GATEWAY}.{self._sessions}", self._sessions, **more)

    def connected(self, peer: str, **more: Any) -> Client:
        client = self.client(peer, **more)
        client.connect()
        return client

    def joined(self, peer: str, capabilities: Json = CAPABILITIES, **more: Any) -> Client:
        client = self.connected(peer)
        assert client.ask("join", peerName=peer, rtpCapabilities=capabilities, **more)["ok"], client.frames[-1]
        return client

    def joined_slowly(self, peer: str) -> Client:
        """Joined and committed, in a harness that is not prompt."""
        client = self.connected(peer)
        client.request("join", peerName=peer, rtpCapabilities=CAPABILITIES)
        self.commit()
        return client

    def sending(self, peer: str, capabilities: Json = CAPABILITIES) -> Client:
        """Joined, with transport 1 to send."""
        client = self.joined(peer, capabilities)
        assert client.ask("createTransport", id=1, direction="send", dtlsParameters=DTLS)["ok"]
        return client

    def receiving(self, peer: str, capabilities: Json = CAPABILITIES) -> Client:
        """Joined, with transport 2 to receive."""
        client = self.joined(peer, capabilities)
        assert client.ask("createTransport", id=2, direction="recv")["ok"]
        return client

    # --- when -------------------------------------------------------------------------------------------------

    def receive(self, item: RoomItem, origin: str = GATEWAY) -> Job:
        job = Job(item, origin, lambda: self.done_items.append(item))
        self.jobs[job] = None
        self._hand_to_executor(job)
        self._run_until_idle()
        return job

    def event(self, event: media.AnyEvent, *, n: int = 1, node: str = NODE, epoch: int | None = None) -> None:
        epoch = self.room.meta.epochs if epoch is None else epoch
        encoded = media.encode_event(event)
        self.receive(bus.MediaEvent(self.name, self.room.incarnation, epoch, node, n, encoded), node)

    def answer(self, result: media.AnyResult | None = None, at: int = 0) -> media.AnyRequest:
        """Answers a pending media request, by default the oldest, and with success."""
        asked = self.pending_requests.pop(at)
        try:
            asked.on_result(result or result_of(asked.request))
        except Defect as defect:
            self._handle_defect(defect)
        self._run_until_idle()
        return asked.request

    def fail(self, code: int = 503, reason: str = "no", at: int = 0) -> media.AnyRequest:
        return self.answer(media.Failed(code, reason), at)

    def act(self, call: Callable[[Executor], None]) -> None:
        """Has the executor do what no item asks for: time passes, or another process dies."""
        call(self.executor)
        self._run_until_idle()

    def tick(self, seconds: float) -> None:
        """Brings the partition's time, in seconds, to the room."""
        self.act(lambda executor: executor.tick(round(seconds * 1000)))

    def take(self) -> bool:
        """Begins a commit, if none is under way; whether it did."""
        if self.pending is not None or not self.executor.changed:
            return False
        self.pending = self.executor.take()
        return True

    def store(self) -> None:
        """Stores the commit under way; the worker may still die before it learns of that."""
        assert self.pending is not None
        changes, _ = self.pending
        self.n = changes.n
        for name, record in changes.fields.items():
            if record is None:
                self.fields.pop(name, None)
            else:
                self.fields[name] = record
        for session, closed in changes.closed_sessions.items():
            if closed is None:
                self.closed_sessions.pop(session, None)
            else:
                self.closed_sessions[session] = closed
        for key, answer in changes.answered_calls.items():
            if answer is None:
                self.answered_calls.pop(key, None)
            else:
                self.answered_calls[key] = answer
        for message in changes.messages:
            for receiver, out in message.to:
                self.stream.setdefault(receiver.id, []).append(Output(out, message.body, message.close))
        for observer in self.observers:
            observer(changes)

    def finish(self) -> None:
        """Tells the worker that its commit is stored: orders and messages go out, jobs are done."""
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
        """Crashes the worker: another one loads the room and gets again what was not committed."""
        self.executor.stop()
        self.pending = None
        self.pending_requests.clear()
        self.poisoned.clear()
        self._reload()

    def _run_until_idle(self) -> None:
        if not self.prompt:
            return
        while self.pending_requests:
            self.answer()
        self.commit()

    def _hand_to_executor(self, job: Job) -> None:
        try:
            self.executor.receive(job)
        except Defect as defect:
            self._handle_defect(defect)

    def _handle_defect(self, defect: Defect) -> None:
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
                self._hand_to_executor(job)

    # --- then -------------------------------------------------------------------------------------------------

    def reloaded(self) -> Room:
        """The room as another worker would load it."""
        return load(
            self.name, 0, "incarnation", self.n, self.fields, self.closed_sessions, self.answered_calls, self.limits
        )
