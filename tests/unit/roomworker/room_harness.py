"""A room without Redis, broker and media node: bus items in, decoded frames out, faults when the test wants them.

`RoomHarness` stands for everything around a `RoomActor`: it says when and how media requests are answered, when the
room is committed to its `MemoryStore`, and when the worker crashes, so that another loads the room again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from roomworker.core.journal import Changes, Reply
from roomworker.core.limits import Limits
from roomworker.core.model import ClosedSession, StoredAnswer
from roomworker.core.room import Room
from roomworker.counters import Counters
from roomworker.runtime.executor import Executor, OnResult
from roomworker.runtime.room_actor import RoomActor
from roomworker.runtime.services import RoomServices
from roomworker.runtime.session_queue import Defect, Identity, Job, RoomItem
from roomworker.storage.loader import load
from roomworker.storage.memory import MemoryStore
from roomworker.storage.port import Commit, Stored
from roomworker.storage.retention import Retention
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


class WatchedActor(RoomActor):
    """Tells the test of defects."""

    def __init__(self, harness: "RoomHarness") -> None:
        super().__init__(harness.name, 0, harness.services, lambda _: harness.forgotten())
        self._harness = harness

    def _handle_defect(self, defect: Defect) -> None:
        self._harness.defects.append(defect.__cause__)
        super()._handle_defect(defect)


class RoomHarness:
    """With `prompt` everything happens at once: media requests succeed, changes are committed. Without, the test says
    when. Jobs whose effect is not committed are delivered again after a crash, as a broker does.
    """

    def __init__(self, name: str = "room", *, prompt: bool = True) -> None:
        self.name = name
        self.prompt = prompt
        self.node: str | None = NODE
        self.pending_requests: list[PendingRequest] = []
        self.requests: list[media.AnyRequest] = []
        self.reports: list[tuple[str, bus.Applied]] = []
        self.orders: list[media.AnyOrder] = []
        self.answers: list[tuple[str, bus.CallAnswer]] = []
        self.links: list[tuple[str, bus.Link]] = []
        self.counters = Counters()
        self.memory = MemoryStore()
        self.n = 0
        """The number of the last commit that is stored."""
        self.stream: dict[str, list[Output]] = {}
        self.pending: tuple[Changes, list[Job]] | None = None
        self.jobs: dict[Job, None] = {}
        self.done_items: list[bus.AnyItem] = []
        self.defects: list[BaseException | None] = []
        self.observers: list[Callable[[Changes], None]] = []
        self.services = self._make_services()
        self._sessions = 0
        self._commit: Commit | None = None
        self._loads: list[RoomActor] = []
        self._present: RoomActor | None = None

    def _make_services(self) -> RoomServices:
        """Stand-ins for what a room uses of its worker."""
        outbox: Any = SimpleNamespace(send=self.send, send_changes=self.send_changes)
        client: Any = SimpleNamespace(ask=lambda node, request, on_result, _: self.ask(node, request, on_result))
        committer: Any = SimpleNamespace(want_load=self._loads_append, want_commit=lambda _: None)
        return RoomServices(
            worker="worker",
            limits=Limits(),
            counters=self.counters,
            outbox=outbox,
            media=client,
            committer=committer,
            retention=Retention(15.0, 0.0),
            choose_node=lambda: self.node,
            clock=lambda: 0.0,
        )

    def _loads_append(self, actor: RoomActor) -> None:
        self._loads.append(actor)

    @property
    def _actor(self) -> RoomActor:
        """The room in the worker's hands; made when it is needed, and given up when it is of no more use."""
        if self._present is None:
            self._present = WatchedActor(self)
        return self._present

    @property
    def room(self) -> Room:
        """The room in memory or, if it is not loaded, as it is stored."""
        return self._actor.loaded_room or self.reloaded()

    @property
    def executor(self) -> Executor:
        """The room's executor or, if it is not loaded, one that a successor would have."""
        return self._actor._executor or Executor(self.reloaded(), self.services, set(), self.ask, _ignore)

    @property
    def changed(self) -> bool:
        """Whether anything waits to be committed."""
        return self._actor._deleting or (self._actor.loaded_room is not None and self._actor.loaded_room.changed)

    @property
    def limits(self) -> Limits:
        return self.services.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self.services.limits = limits

    @property
    def poisoned(self) -> set[Identity]:
        return self._actor._poisoned

    # --- what is stored ---------------------------------------------------------------------------------------

    @property
    def stored(self) -> Stored:
        return self.memory.read(self.name)

    @property
    def fields(self) -> dict[str, bytes]:
        return self.stored.fields

    @property
    def closed_sessions(self) -> dict[str, ClosedSession]:
        return self.stored.closed_sessions

    @property
    def answered_calls(self) -> dict[str, StoredAnswer]:
        return self.stored.answered_calls

    # --- what the room asks for -------------------------------------------------------------------------------

    def ask(self, node: str, request: media.AnyRequest, on_result: OnResult) -> None:
        self.pending_requests.append(PendingRequest(node, request, on_result))
        self.requests.append(request)

    def send(self, gateway: str, what: bus.Applied | Reply) -> None:
        if isinstance(what, bus.Applied):
            self.reports.append((gateway, what))
        else:
            self._take_replies([(gateway, what)])

    def send_changes(self, changes: Changes, done: Callable[[], None]) -> None:
        self.orders += [order for _, order in changes.orders]
        self._take_replies(changes.replies)
        done()

    def forgotten(self) -> None:
        """The worker is done with the room; the next message makes another actor."""
        self._present = None

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
        """Returns a joined client whose join is committed, in a harness that is not prompt."""
        client = self.connected(peer)
        client.request("join", peerName=peer, rtpCapabilities=CAPABILITIES)
        self.commit()
        return client

    def sending(self, peer: str, capabilities: Json = CAPABILITIES) -> Client:
        """Returns a joined client with transport 1 to send."""
        client = self.joined(peer, capabilities)
        assert client.ask("createTransport", id=1, direction="send", dtlsParameters=DTLS)["ok"]
        return client

    def receiving(self, peer: str, capabilities: Json = CAPABILITIES) -> Client:
        """Returns a joined client with transport 2 to receive."""
        client = self.joined(peer, capabilities)
        assert client.ask("createTransport", id=2, direction="recv")["ok"]
        return client

    # --- when -------------------------------------------------------------------------------------------------

    def receive(self, item: RoomItem, origin: str = GATEWAY) -> Job:
        job = Job(item, origin, lambda: self._job_done(job))
        self.jobs[job] = None
        self._actor.receive(job)
        self._load()
        self._run_until_idle()
        return job

    def _job_done(self, job: Job) -> None:
        if job in self.jobs:
            del self.jobs[job]
            self.done_items.append(job.item)

    def event(self, event: media.AnyEvent, *, n: int = 1, node: str = NODE, epoch: int | None = None) -> None:
        epoch = self.room.meta.epochs if epoch is None else epoch
        encoded = media.encode_event(event)
        self.receive(bus.MediaEvent(self.name, self.room.incarnation, epoch, node, n, encoded), node)

    def answer(self, result: media.AnyResult | None = None, at: int = 0) -> media.AnyRequest:
        """Answers a request under way, by default the oldest, and that it worked."""
        asked = self.pending_requests.pop(at)
        asked.on_result(result or result_of(asked.request))
        self._load()
        self._run_until_idle()
        return asked.request

    def fail(self, code: int = 503, reason: str = "no", at: int = 0) -> media.AnyRequest:
        return self.answer(media.Failed(code, reason), at)

    def act(self, call: Callable[[Executor], object]) -> None:
        """Something that comes from time or from other processes' death. A defect of it fails the test."""
        raised: list[Exception] = []

        def guarded(executor: Executor) -> None:
            try:
                call(executor)
            except Exception as defect:
                raised.append(defect)
                raise

        self._actor.when_live(guarded)
        self._load()
        if raised:
            raise raised[0]
        self._run_until_idle()

    def tick(self, seconds: float) -> None:
        """Brings the partition's time, in seconds, to the room."""
        self.services.room_time[0] = round(seconds * 1000)
        self.act(lambda executor: executor.tick(round(seconds * 1000)))

    def take(self) -> bool:
        """Begins a commit, if one is wanted and none is under way."""
        commit = self._actor.next_commit()
        if commit is None:
            return False
        self._commit = commit
        under_way = self._actor._pending
        assert under_way is not None
        self.pending = under_way.changes, under_way.jobs
        return True

    def store(self) -> None:
        """The commit under way is stored; the worker may still die before it hears so."""
        assert self.pending is not None
        assert self._commit is not None
        assert self.memory.apply(self._commit) == "OK"
        if not self._commit.version:
            return  # a deletion
        changes, _ = self.pending
        self.n = changes.n
        for message in changes.messages:
            for receiver, out in message.to:
                self.stream.setdefault(receiver.id, []).append(Output(out, message.body, message.close))
        for observer in self.observers:
            observer(changes)

    def finish(self) -> None:
        """The worker hears that its commit is in: orders and messages go out, jobs are done."""
        assert self._commit is not None
        commit, self._commit, self.pending = self._commit, None, None
        self._actor.commit_answered(commit, "OK")
        self._load()

    def commit(self) -> None:
        """Commits until nothing is left to commit."""
        while self.take():
            self.store()
            self.finish()

    def _take_replies(self, replies: Iterable[tuple[str, Reply]]) -> None:
        for gateway, reply in replies:
            if isinstance(reply, bus.Link):
                self.links.append((gateway, reply))
            else:
                self.answers.append((gateway, reply))

    def crash(self) -> None:
        """Another worker takes over; what was not committed is delivered to it again."""
        self._actor.close()
        self._loads.clear()
        self._commit = self.pending = None
        self.pending_requests.clear()
        for job in list(self.jobs):
            self._actor.receive(job)
        self._load()

    def _run_until_idle(self) -> None:
        if not self.prompt:
            return
        while self.pending_requests:
            self.answer()
        self.commit()

    def _load(self) -> None:
        """Rooms are loaded as soon as somebody wants it."""
        while self._loads:
            self._loads.pop(0).loaded(self.memory.read(self.name))

    # --- then -------------------------------------------------------------------------------------------------

    def reloaded(self) -> Room:
        """The room as a successor would load it."""
        stored = self.stored
        incarnation, _, n = stored.version.partition(":")
        return load(
            self.name,
            0,
            incarnation,
            int(n or 0),
            stored.fields,
            stored.closed_sessions,
            stored.answered_calls,
            self.limits,
        )


def _ignore(job: Job) -> None:
    """Does nothing: no test waits for the job."""
