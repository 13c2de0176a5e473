"""Random calls under random faults: inputs lost, repeated and reordered, results in any order, workers that die.

The gateways are as the bus describes them: they number inputs, keep them until they are reported applied, and send
again from there.
"""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from roomworker.core.journal import Changes
from shared.protocol import bus, client, media
from tests.support.sampling import examples
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import AUDIO_ONLY, CAPABILITIES, DTLS, NO_CODECS, OPUS, VP8, Json
from tests.unit.roomworker.room_harness import NODE, RoomHarness
from tests.unit.roomworker.room_snapshots import indexes, snapshot

PEERS = ("alice", "bob", "c|arol", "meta")
SMALL_IDS = range(3)
CONSUMERS = range(1, 13)
BOTH = (False, True)
SOME_APP_DATA: tuple[Json, ...] = ({}, {"appData": {"a": [1, None, "é"]}}, {"appData": None})
APP_DATA = st.sampled_from(SOME_APP_DATA)
NOTIFICATIONS = {
    "leave", "updateTransport", "closeTransport", "pauseProducer", "resumeProducer", "closeProducer",
    "pauseConsumer", "resumeConsumer", "setConsumerPreferredProfile",
}  # fmt: skip
PRODUCED = (("audio", OPUS), ("video", VP8))
MESSAGES: dict[str, list[Json]] = {
    "join": [
        {"rtpCapabilities": caps, **more} for caps in (CAPABILITIES, AUDIO_ONLY, NO_CODECS) for more in SOME_APP_DATA
    ],
    "leave": [{}],
    "createTransport": [
        {"id": id_, "direction": direction, **more}
        for id_ in SMALL_IDS
        for direction in ("send", "recv")
        for more in ({}, {"dtlsParameters": DTLS})
    ],
    "updateTransport": [{"id": id_, "dtlsParameters": DTLS} for id_ in SMALL_IDS],
    "restartTransport": [{"id": id_} for id_ in SMALL_IDS],
    "closeTransport": [{"id": id_} for id_ in SMALL_IDS],
    "createProducer": [
        {"id": id_, "kind": kind, "transportId": transport, "rtpParameters": parameters, "paused": paused}
        for id_ in SMALL_IDS
        for transport in SMALL_IDS
        for kind, parameters in PRODUCED
        for paused in BOTH
    ],
    **{f"{do}Producer": [{"id": id_} for id_ in SMALL_IDS] for do in ("pause", "resume", "close")},
    "enableConsumer": [
        {"id": id_, "transportId": transport, "paused": paused}
        for id_ in CONSUMERS
        for transport in SMALL_IDS
        for paused in BOTH
    ],
    **{f"{do}Consumer": [{"id": id_} for id_ in CONSUMERS] for do in ("pause", "resume")},
    "setConsumerPreferredProfile": [
        {"id": id_, "profile": profile} for id_ in CONSUMERS for profile in ("low", "high", "default", "best")
    ],
}
"""The data that clients send, by method; a join gets its peer's name besides."""
SENDS = st.tuples(st.sampled_from(PEERS), st.sampled_from(list(MESSAGES)), st.integers(0, 71))
"""A peer, a method, and which of its messages."""


class Engine:
    """The objects on the media nodes: requested, and not ordered closed."""

    def __init__(self) -> None:
        self.living_on: dict[str, set[str]] = {}
        self.closed: set[str] = set()
        self.dead: set[str] = set()

    def die(self) -> None:
        """All routers are gone, and a request that names one fails."""
        self.dead |= set(self.living_on)
        self.living_on.clear()

    def ask(self, request: media.AnyRequest) -> None:
        router = request.router.id
        if router in self.dead:
            return
        match request:
            case media.CreateTransport(transport=transport):
                self._add(router)
                self._add(transport, router)
            case media.Produce(producer=producer, transport=transport):
                self._add(producer, transport)
            case media.Consume(consumer=consumer, transport=transport, producer=producer):
                self._add(consumer, transport, producer)
            case _:
                pass

    def _add(self, id_: str, *parents: str) -> None:
        assert id_ not in self.closed, "an engine id is used again"
        self.living_on.setdefault(id_, set()).update(parents)

    def close(self, id_: str) -> None:
        self.closed.add(id_)
        self.living_on.pop(id_, None)
        for child in [child for child, parents in self.living_on.items() if id_ in parents]:
            self.close(child)

    def forget(self, known: set[str]) -> None:
        """Forgets objects that a dead worker requested and never stored."""
        self.living_on = {id_: parents for id_, parents in self.living_on.items() if id_ in known}


class Network(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.harness = RoomHarness(prompt=False)
        self.harness.observers.append(self.stored)
        self.engine = Engine()
        self.seen = 0
        self.events = 0
        self.clients: dict[str, Client] = {}
        self.replaced: list[Client] = []
        self.everybody: list[Client] = []
        self.wire: list[tuple[Client, bus.SessionItem]] = []
        self.kept: dict[str, list[bus.SessionItem]] = {}
        self.methods = list(MESSAGES)
        """The methods that clients may call."""

    # --- gateways ---------------------------------------------------------------------------------------------

    def send(self, sender: Client, item: bus.SessionItem) -> None:
        self.kept[sender.session].append(item)
        self.wire.append((sender, item))

    def applied(self, report: bus.Applied) -> None:
        if report.n < 0:
            return
        kept = self.kept[report.session]
        self.kept[report.session] = [item for item in kept if input_number(item) > report.n]

    def stored(self, changes: Changes) -> None:
        """A commit is in. What it says is true, whether or not anybody hears it from this worker."""
        for session, n_in, n_out in changes.applied:
            assert [sent.out for sent in self.harness.stream.get(session.id, [])] == list(range(1, n_out + 1))
            assert n_in >= 0
        for _, order in changes.orders:
            if isinstance(order, media.Close):
                self.engine.close(order.object)
        memory, reloaded = self.harness.room, self.harness.reloaded()
        if not memory.changed:  # nothing came after `take`
            assert snapshot(reloaded) == snapshot(memory)
            assert indexes(reloaded) == indexes(memory)
        assert set(self.harness.fields) == set(snapshot(reloaded)), "a record without its owner"

    def verify(self) -> None:
        """Takes notice of what the worker did."""
        for request in self.harness.requests[self.seen :]:
            self.engine.ask(request)
        self.seen = len(self.harness.requests)
        for _, report in self.harness.reports:
            self.check_report(report)
            self.applied(report)
        self.harness.reports.clear()
        assert not self.harness.defects, self.harness.defects

    def check_report(self, report: bus.Applied) -> None:
        """Only what is stored is reported (DELIVERY I8)."""
        session = next((s for s in self.harness.reloaded().sessions.values() if s.id == report.session), None)
        if session is not None:
            assert report.n <= session.n_in
            assert report.out <= session.n_out
        elif report.session not in self.harness.closed_sessions:
            assert report.n == -1

    # --- what clients do --------------------------------------------------------------------------------------

    @initialize()
    def a_call(self) -> None:
        """Two who are in a call already, so that what is random has something to break."""
        for peer, transport, direction in (("alice", 1, "send"), ("bob", 2, "recv")):
            self.connects(peer, clock=0)
            self.joins(peer)
            self.requests(peer, "createTransport", id=transport, direction=direction)
        self.requests("alice", "createProducer", id=1, kind="video", transportId=1, rtpParameters=VP8)
        self.deliver_everything()
        self.enables_all("bob", 2)

    @rule(peer=st.sampled_from(PEERS), clock=st.integers(-90_000, 90_000))
    def connects(self, peer: str, clock: int) -> None:
        """A new connection; `clock`: how far ahead its gateway's clock is, which changes nothing."""
        if (before := self.clients.get(peer)) is not None:
            self.replaced.append(before)
        it = self.harness.client(peer)
        it.accepted += clock
        self.clients[peer] = it
        self.everybody.append(it)
        self.kept[it.session] = []
        self.send(it, it.connect_item())

    def client_of(self, peer: str) -> Client | None:
        """Returns the peer's client; if the peer is not connected another's, so that few steps have no effect."""
        return self.clients.get(peer) or next(iter(self.clients.values()), None)

    def joins(self, peer: str, **more: Any) -> None:
        if (it := self.client_of(peer)) is not None:
            self.requests(it.peer, "join", peerName=it.peer, rtpCapabilities=CAPABILITIES, **more)

    def requests(self, peer: str, method: str, **data: Any) -> None:
        if (it := self.client_of(peer)) is not None:
            self.send(it, it.request_item(method, **data))

    def notifies(self, peer: str, method: str, **data: Any) -> None:
        if (it := self.client_of(peer)) is not None:
            self.send(it, it.notification_item(method, **data))

    @initialize(methods=st.frozensets(st.sampled_from(list(MESSAGES)), max_size=len(MESSAGES) - 1))
    def leaves_out(self, methods: frozenset[str]) -> None:
        """Clients send none of these, or a call would seldom last until something interesting happens in it."""
        self.methods = [method for method in MESSAGES if method not in methods]

    @rule(sends=st.lists(SENDS, min_size=1, max_size=6))
    def clients_send(self, sends: list[tuple[str, str, int]]) -> None:
        for peer, method, at in sends:
            if method in self.methods and (it := self.client_of(peer)) is not None:
                message = MESSAGES[method][at % len(MESSAGES[method])]
                if method == "join":
                    message = {"peerName": it.peer, **message}
                (self.notifies if method in NOTIFICATIONS else self.requests)(it.peer, method, **message)

    @rule(peer=st.sampled_from(PEERS), transport=st.sampled_from(SMALL_IDS))
    def enables_all(self, peer: str, transport: int) -> None:
        for id_ in self.harness.room.producers_by_number:
            self.requests(peer, "enableConsumer", id=id_, transportId=transport)

    @rule(peer=st.sampled_from(PEERS), data=st.binary(max_size=8))
    def sends_rubbish(self, peer: str, data: bytes) -> None:
        if (it := self.client_of(peer)) is not None:
            it.ids += 1
            self.send(it, it.input(client.REQUEST, it.ids, data))

    @rule(peer=st.sampled_from(PEERS))
    def is_refused(self, peer: str) -> None:
        if (it := self.client_of(peer)) is not None:
            it.ids += 1
            it.n += 1
            self.send(
                it, bus.RejectedInput(self.harness.name, it.session, it.connection, it.n, it.ids, 429, "too many")
            )

    @rule(peer=st.sampled_from(PEERS))
    def disconnects(self, peer: str) -> None:
        if (it := self.clients.pop(peer, None)) is not None:
            self.send(it, it.disconnect_item())

    # --- what the network does --------------------------------------------------------------------------------

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 20))
    def delivers(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            self._deliver(0)

    @precondition(lambda self: self.wire)
    @rule(at=st.integers(0, 5))
    def delivers_out_of_order(self, at: int) -> None:
        self._deliver(at % len(self.wire))

    def _deliver(self, at: int) -> None:
        sender, item = self.wire.pop(at)
        self.harness.receive(item, sender.gateway)
        self.verify()

    @precondition(lambda self: self.wire)
    @rule(at=st.integers(0, 5))
    def loses(self, at: int) -> None:
        del self.wire[at % len(self.wire)]

    @rule(at=st.integers(0, 5))
    def repeats(self, at: int) -> None:
        """A gateway sends all it keeps once more."""
        it = self.everybody[at % len(self.everybody)]
        self.wire += [(it, item) for item in self.kept[it.session]]

    # --- what media nodes do ----------------------------------------------------------------------------------

    @precondition(lambda self: self.harness.pending_requests)
    @rule(at=st.integers(0, 5), fails=st.integers(0, 4))
    def node_answers(self, at: int, fails: int) -> None:
        at %= len(self.harness.pending_requests)
        if fails == 0 or self.harness.pending_requests[at].request.router.id in self.engine.dead:
            self.harness.fail(at=at)
        else:
            self.harness.answer(at=at)
        self.verify()

    @precondition(lambda self: self.harness.room.consumers_by_engine)
    @rule(at=st.integers(0, 5), profile=st.sampled_from(["low", "high", "none"]), again=st.booleans())
    def node_reports_profile(self, at: int, profile: Any, again: bool) -> None:
        engines = list(self.harness.room.consumers_by_engine)
        self.events += not again
        self.harness.event(media.ProfileChanged(engines[at % len(engines)], profile), n=self.events)
        self.verify()

    @precondition(lambda self: self.harness.room.meta.placement)
    @rule()
    def engine_dies(self) -> None:
        self.events += 1
        self.engine.die()
        self.harness.event(media.RouterClosed(self.harness.room.router.id, "died"), n=self.events)
        self.verify()

    @rule(there=st.booleans())
    def nodes_come_and_go(self, there: bool) -> None:
        self.harness.node = NODE if there else None

    # --- what workers do --------------------------------------------------------------------------------------

    @rule()
    def begins_commit(self) -> None:
        self.harness.take()

    @precondition(lambda self: self.harness.pending)
    @rule()
    def commits(self) -> None:
        self.harness.store()
        self._finish()

    def _finish(self) -> None:
        pending = self.harness.pending
        assert pending is not None
        self.harness.finish()
        for session, n_in, n_out in pending[0].applied:
            self.applied(bus.Applied(session.connection, session.id, n_in, n_out))
        self.verify()

    @precondition(lambda self: self.harness.pending)
    @rule()
    def dies_after_commit(self) -> None:
        self.harness.store()
        self.dies()

    @rule()
    def dies(self) -> None:
        self.verify()
        known = known_engines(self.harness)
        self.harness.crash()
        self.harness.act(lambda executor: executor.announce())
        self.engine.forget(known)
        self.verify()

    # --- what must be -----------------------------------------------------------------------------------------

    @invariant()
    def references_are_consistent(self) -> None:
        room = self.harness.room
        for peer in room.peers.values():
            assert room.session_of[peer.name] is peer.session
            assert room.sessions[peer.session.id] is peer.session
            for source in peer.producers.values():
                assert peer.transports[source.transport].direction == "send"
                assert room.producers_by_number[source.number] == (peer, source)
            for fed in peer.consumers.values():
                assert room.producers_by_number[fed.id][0] is not peer
                assert fed.transport is None or fed.transport in peer.transports
                assert fed.enabled == (room.consumers_by_engine.get(fed.engine) == (peer, fed))
        assert len(room.producers_by_number) == sum(len(peer.producers) for peer in room.peers.values())
        assert len(room.consumers_by_engine) == sum(
            f.enabled for p in room.peers.values() for f in p.consumers.values()
        )

    def deliver_everything(self) -> None:
        """All that is under way arrives, is answered and committed."""
        while self.wire or self.harness.pending_requests or self.harness.pending or self.harness.changed:
            if self.wire:
                self._deliver(0)
            elif self.harness.pending_requests:
                self.node_answers(0, 1)
            else:
                if self.harness.pending is None:
                    self.harness.take()
                self.commits()

    def teardown(self) -> None:
        """Everything gets through in the end: then all is answered, and nothing is left."""
        for it in (*self.replaced, *self.clients.values()):
            self.send(it, it.disconnect_item())
        self.harness.node = NODE
        for _ in range(50):
            if not any(self.kept.values()):
                break
            self.wire = [(it, item) for it in self.everybody for item in self.kept[it.session]]
            self.deliver_everything()
        assert not any(self.kept.values()), "something never got through"
        assert not self.harness.jobs
        self.check_outputs()
        assert not self.harness.room.exists
        assert set(self.harness.fields) <= {"meta"}
        assert not self.engine.living_on, "forgotten on the media node"

    def check_outputs(self) -> None:
        for it in self.everybody:
            sent = self.harness.stream.get(it.session, [])
            assert [one.out for one in sent] == list(range(1, len(sent) + 1))
            answers = Counter(frame["id"] for frame in it.frames if frame.get("response"))
            assert set(answers.values()) <= {1}, "answered twice"
            asked = sorted(item.id for item in it.items if isinstance(item, bus.Input) and item.id is not None)
            answered = sorted(id_ for id_ in answers if id_ in asked)
            assert answered == asked[: len(answered)], "answered out of order, or not at all"
            for frame in it.frames:
                assert ("errorCode" in frame) <= bool(frame.get("errorReason"))
                assert frame.get("errorCode") != 500


def input_number(item: bus.SessionItem) -> int:
    return 0 if isinstance(item, bus.Connect) else item.n


def known_engines(harness: RoomHarness) -> set[str]:
    """Engine ids of all that is stored."""
    room = harness.reloaded()
    known = {room.router.id} if room.meta.placement else set()
    for peer in room.peers.values():
        known |= {transport.engine for transport in peer.transports.values()}
        known |= {source.engine for source in peer.producers.values()}
        known |= {fed.engine for fed in peer.consumers.values() if fed.engine}
    return known


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
