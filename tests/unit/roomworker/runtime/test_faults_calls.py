"""Random faults as in `test_faults`, while the application's server calls, peers talk, spy, update and want stats."""

import json
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from roomworker.core.journal import Changes
from shared.protocol import actions, bus, client
from tests.support.sampling import examples
from tests.unit.roomworker.harness_client import GATEWAY
from tests.unit.roomworker.payloads import OPUS, VP8, Json
from tests.unit.roomworker.room_harness import NODE
from tests.unit.roomworker.runtime.test_faults import APP_DATA, PEERS, Network

AGAIN = {"encodings": [{"ssrc": 7}]}
PARAMETERS = st.sampled_from(
    [(OPUS, VP8), ({**OPUS, **AGAIN}, {**VP8, **AGAIN}), ({**OPUS, "muxId": "0"}, {**VP8, "muxId": "0"}), (VP8, OPUS)]
)
"""For audio and for video."""

OBJECTS = st.sampled_from(
    [
        {"do": "closeTransport"},
        {"do": "setMaxBitrate", "bitrate": 1000},
        {"do": "pauseProducer"},
        {"do": "resumeProducer"},
        {"do": "closeProducer"},
        {"do": "pauseConsumer"},
        {"do": "resumeConsumer"},
        {"do": "setConsumerProfile", "profile": "low"},
        {"do": "setConsumerProfile", "profile": "high"},
        {"do": "requestKeyFrame"},
        {"do": "inspectPeer"},
    ]
)


class CalledNetwork(Network):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bus.Call] = []
        self.calls_on_wire: list[bus.Call] = []
        self.answers: dict[int, bus.CallAnswer] = {}
        self.said = 0
        self.now = 0

    def stored(self, changes: Changes) -> None:
        super().stored(changes)
        memory, reloaded = self.harness.room, self.harness.reloaded()
        if not memory.changed:
            assert reloaded.limits == memory.limits
            assert reloaded.rtp_capabilities == memory.rtp_capabilities
            assert reloaded.answered_calls == memory.answered_calls
            assert set(reloaded.stats_due) <= set(memory.stats_due)

    def verify(self) -> None:
        super().verify()
        for gateway, answer in self.harness.answers:
            assert gateway == GATEWAY
            call = self.calls[answer.n - 1]
            if answer.code == 200 and not isinstance(actions.decode(call.action), actions.READ_ACTIONS):
                assert self.harness.answered_calls[call.key].body == answer.body, "answered before it was committed"
                before = self.answers.get(answer.n, answer)
                assert before == answer or before.code != 200, "answered otherwise than before"
            assert answer.code != 500
            self.answers[answer.n] = answer
        self.harness.answers.clear()

    # --- what the application's server does -------------------------------------------------------------------

    def calls_for(self, do: Json) -> None:
        n = len(self.calls) + 1
        call = bus.Call(self.harness.name, f"key{n}", GATEWAY, n, json.dumps(do).encode())
        self.calls.append(call)
        self.calls_on_wire.append(call)

    @precondition(lambda self: self.harness.room.producers_by_number)
    @rule(do=OBJECTS, at=st.integers(0, 7), more=APP_DATA)
    def calls_about_object(self, do: Json, at: int, more: Json) -> None:
        peer, id_ = self.one_of(do["do"], at)
        self.calls_for({**do, "peer": peer, "id": id_, **more})

    def one_of(self, method: str, at: int) -> tuple[str, int]:
        """A transport, producer or consumer that is there: its peer and id."""
        peers = self.harness.room.peers.values()
        there = [(peer.name, id_) for peer in peers for id_ in peer.transports]
        if "Producer" in method:
            there = [(peer.name, id_) for peer in peers for id_ in peer.producers]
        elif "Transport" not in method and "Bitrate" not in method:
            there = [(peer.name, id_) for peer in peers for id_ in self.harness.room.producers_by_number]
        return there[at % len(there)]

    @rule(
        do=st.sampled_from(
            [
                {"do": "createRoom", "idleSeconds": 2},
                {"do": "createRoom", "limits": {"peers": 2, "producersPerPeer": 1, "maxIncomingBitrate": 9}},
                {"do": "inspectRoom"},
                {"do": "closeRoom"},
            ]
        ),
        more=APP_DATA,
    )
    def calls_about_room(self, do: Json, more: Json) -> None:
        self.calls_for({**do, **more})

    @rule(peer=st.sampled_from(PEERS), more=APP_DATA)
    def calls_to_close_peer(self, peer: str, more: Json) -> None:
        self.calls_for({"do": "closePeer", "peer": peer, **more})

    @rule(to=st.sampled_from([{}, {"peer": "alice"}]))
    def server_sends_message(self, to: Json) -> None:
        self.said += 1
        self.calls_for({"do": "sendMessage", "data": self.said, **to})

    @precondition(lambda self: not self.harness.room.producers_by_number)
    @rule()
    def starts_another_call(self) -> None:
        self.a_call()

    @rule()
    def delivers_everything(self) -> None:
        self.deliver_everything()

    # --- what else clients do ---------------------------------------------------------------------------------

    @rule(peer=st.sampled_from(PEERS), to=st.sampled_from([{}, {"to": "alice"}, {"to": "nobody"}]))
    def peer_sends_message(self, peer: str, to: Json) -> None:
        if (it := self.client_of(peer)) is not None:
            self.said += 1
            self.send(it, it.input(client.MESSAGE, None, json.dumps({"data": self.said, **to}).encode()))

    @rule(peer=st.sampled_from(PEERS))
    def joins_as_spy(self, peer: str) -> None:
        self.joins(peer, spy=True)

    @precondition(lambda self: self.harness.room.producers_by_number)
    @rule(at=st.integers(0, 7), parameters=PARAMETERS)
    def updates_producer(self, at: int, parameters: tuple[Json, Json]) -> None:
        peer, id_ = self.one_of("updateProducer", at)
        is_video = self.harness.room.peers[peer].producers[id_].kind == "video"
        self.notifies(peer, "updateProducer", id=id_, rtpParameters=parameters[is_video])

    @precondition(lambda self: self.harness.room.producers_by_number)
    @rule(at=st.integers(0, 7), what=st.sampled_from(["Transport", "Producer", "Consumer"]), enable=st.booleans())
    def wants_stats(self, at: int, what: str, enable: bool) -> None:
        peer, id_ = self.one_of(what, at)
        self.notifies(peer, f"{'enable' if enable else 'disable'}{what}Stats", id=id_)

    @precondition(lambda self: self.harness.room.producers_by_number)
    @rule(at=st.integers(0, 7))
    def restarts_one(self, at: int) -> None:
        peer, id_ = self.one_of("Transport", at)
        self.requests(peer, "restartTransport", id=id_)

    # --- what gateways and time do ----------------------------------------------------------------------------

    @precondition(lambda self: self.calls_on_wire)
    @rule(at=st.integers(0, 5))
    def delivers_call(self, at: int) -> None:
        self.harness.receive(self.calls_on_wire.pop(at % len(self.calls_on_wire)))
        self.verify()

    @precondition(lambda self: self.calls_on_wire)
    @rule(at=st.integers(0, 5))
    def loses_call(self, at: int) -> None:
        del self.calls_on_wire[at % len(self.calls_on_wire)]

    @precondition(lambda self: self.calls)
    @rule(at=st.integers(0, 5))
    def repeats_call(self, at: int) -> None:
        self.calls_on_wire.append(self.calls[-1 - at % len(self.calls)])

    @precondition(lambda self: self.harness.pending is None and not self.harness.changed)
    @rule()
    def commits_and_verifies(self) -> None:
        """Requests that need no commit are answered."""
        self.harness.commit()
        self.verify()

    @rule(seconds=st.integers(1, 3))
    def ticks(self, seconds: int) -> None:
        self.now += seconds
        self.harness.tick(self.now)
        self.verify()

    # --- what must be -----------------------------------------------------------------------------------------

    @invariant()
    def node_and_room_agree(self) -> None:
        for peer in self.harness.room.peers.values():
            objects: list[Any] = [*peer.transports.values(), *peer.producers.values(), *peer.consumers.values()]
            assert not self.engine.closed & {it.engine for it in objects}
            assert not (peer.data.spy and peer.producers)

    def deliver_everything(self) -> None:
        while self.calls_on_wire:
            self.delivers_call(0)
        super().deliver_everything()
        self.commits_and_verifies()

    def teardown(self) -> None:
        """In the end every call is answered."""
        self.harness.node = NODE
        self.calls_on_wire = [call for call in self.calls if call.n not in self.answers]
        self.deliver_everything()
        self.calls_for({"do": "closeRoom"})
        self.deliver_everything()
        assert all(call.n in self.answers for call in self.calls)
        super().teardown()

    def check_outputs(self) -> None:
        super().check_outputs()
        for it in self.everybody:
            heard = Counter(frame["data"]["data"] for frame in it.frames if frame.get("method") == "message")
            assert set(heard.values()) <= {1}, "said twice"


TestCalledNetwork = CalledNetwork.TestCase
TestCalledNetwork.settings = settings(max_examples=examples(100), stateful_step_count=60, deadline=None)
