"""The bytes of a room: counted alike on creation, removal and loading, and refused before they are too many."""

import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from roomworker.core import budget
from roomworker.core.budget import CONSUMER_BYTES, SESSION_BYTES, WorkerTotal
from roomworker.core.limits import Limits
from roomworker.core.model import PeerData, Producer
from roomworker.runtime.executor import Executor
from shared.errors import UNAVAILABLE
from shared.protocol.rtp import RtpCapabilities, RtpParameters
from tests.support.sampling import examples
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, DTLS, OPUS, VP8, Json, error_of
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import snapshot


def limited(**limits: Any) -> RoomHarness:
    harness = RoomHarness()
    harness.limits = Limits(**limits)
    harness.crash()
    return harness


def books(harness: RoomHarness) -> tuple[int, dict[str, int]]:
    return harness.room.budget.total, dict(harness.room.budget.by_peer)


def join(client: Client, **more: Any) -> Json:
    return client.ask("join", peerName=client.peer, rtpCapabilities=CAPABILITIES, **more)


def check_refused(harness: RoomHarness, client: Client, answer: Json, code: int, field: str) -> None:
    assert (error_of(answer)[0], error_of(answer)[1].partition(":")[0]) == (code, field)
    assert books(harness) == _loaded(harness)


def _loaded(harness: RoomHarness) -> tuple[int, dict[str, int]]:
    room = harness.reloaded()
    return room.budget.total, dict(room.budget.by_peer)


# --- counting -----------------------------------------------------------------------------------------------------


def test_peer_counts_with_all_its_objects_and_leaves_nothing() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    before = books(harness)
    consumer = alice.produce(10, "video", appData="x" * 1000)
    bob.enable(consumer)
    assert harness.room.budget.by_peer["alice"] > before[1]["alice"] + 1000
    assert harness.room.budget.by_peer["bob"] == before[1]["bob"] + CONSUMER_BYTES
    assert books(harness) == _loaded(harness)

    alice.notify("closeProducer", id=10)
    assert books(harness) == before
    for client in (alice, bob):
        client.notify("leave")
    assert books(harness) == (2 * SESSION_BYTES + len("alicebob"), {})
    for client in (alice, bob):
        client.disconnect()
    assert books(harness) == (0, {})


def test_bytes_that_stay_unparsed_count_once_and_decoded_ones_several_times() -> None:
    capabilities = RtpCapabilities(codecs=[])
    empty = budget.size_of(PeerData("alice", 1, capabilities))
    data = PeerData("alice", 1, RtpCapabilities(codecs=[], fec_mechanisms=["x" * 100]), app_data=Raw(b"[]" * 500))

    assert budget.size_of(data) == empty + budget.DECODED * len('"' + "x" * 100 + '"') + 1000


@pytest.mark.parametrize("value", [0.5, [[]] * 300, {"": {"": {"": {}}}}, [{}] * 300, "x" * 1000, [0.5] * 200])
def test_record_takes_hardly_more_memory_than_it_counts(value: Any) -> None:
    """Given records of the largest shapes that a message may have."""
    codec = {"name": "VP8", "payloadType": 1, "clockRate": 1, "parameters": {f"{n}": value for n in range(32)}}
    count = min(64, max(1, 60_000 // len(json.dumps(codec))))
    parameters = msgspec.convert({"codecs": [codec] * count, "encodings": [{"ssrc": 1}]}, RtpParameters)
    encoded = msgspec.json.encode(Producer(1, 1, "", 1, "video", parameters, [], [1]))
    decoder = msgspec.json.Decoder(Producer)

    tracemalloc.start()
    decoded = decoder.decode(encoded)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 1.5 * budget.size_of(decoded)
    assert len(encoded) < budget.size_of(decoded)


OPERATIONS = (
    "produce",
    "update",
    "close",
    "enable",
    "pause",
    "transport",
    "closeTransport",
    "leave",
    "join",
    "crash",
)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3), st.booleans()), max_size=30))
def test_books_are_those_of_the_loaded_room_after_any_messages(steps: list[tuple[str, int, bool]]) -> None:
    harness = RoomHarness()
    clients = [harness.sending("alice"), harness.sending("bob")]
    for operation, id_, second in steps:
        client = clients[second]
        match operation:
            case "produce":
                parameters = VP8 if id_ % 2 else OPUS
                kind = "video" if id_ % 2 else "audio"
                message = {"id": id_, "kind": kind, "transportId": 1, "rtpParameters": parameters}
                client.ask("createProducer", **message, appData="x" * id_)
            case "update":
                client.notify("updateProducer", id=id_, rtpParameters={**OPUS, "encodings": [{"ssrc": 10**id_}]})
            case "close":
                client.notify("closeProducer", id=id_)
            case "enable":
                client.ask("enableConsumer", id=id_ + 3, transportId=1)
            case "pause":
                client.notify("pauseConsumer", id=id_ + 3)
            case "transport":
                client.ask("createTransport", id=id_, direction="send", dtlsParameters=DTLS, appData=[id_])
            case "closeTransport":
                client.notify("closeTransport", id=id_)
            case "leave":
                client.notify("leave")
            case "join":
                join(client)
            case "crash":
                harness.crash()
        assert books(harness) == _loaded(harness)
    assert not harness.defects


def test_request_that_fails_on_the_media_node_gives_its_bytes_back() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    before = books(harness)
    alice.request("createTransport", id=1, direction="send", appData="x" * 1000)
    assert harness.room.budget.by_peer["alice"] > before[1]["alice"] + 1000, "bytes are reserved meanwhile"
    harness.fail()
    harness.commit()

    assert books(harness) == before == _loaded(harness)


# --- refusing -----------------------------------------------------------------------------------------------------


def test_peer_beyond_its_own_share_is_refused_with_413_and_nothing_changes() -> None:
    harness = limited(peer_bytes=64 * 1024)
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    data = "x" * 15_000
    id_ = 100
    while (answer := alice.ask("createTransport", id=id_, direction="send", appData=data)).get("ok"):
        id_ += 1
    check_refused(harness, alice, answer, 413, "peer")
    before = snapshot(harness.room)
    message = {"id": 10, "kind": "audio", "transportId": 1, "rtpParameters": OPUS, "appData": data}

    check_refused(harness, alice, alice.ask("createProducer", **message), 413, "peer")

    assert {**snapshot(harness.room), "session|alice": 0} == {**before, "session|alice": 0}
    assert bob.ask("createTransport", id=1, direction="send", appData=data)["ok"], "others have a share of their own"
    alice.notify("closeTransport", id=100)
    assert alice.ask("createProducer", **message)["ok"]


def test_room_beyond_its_bytes_is_refused_with_429_until_a_peer_leaves() -> None:
    harness = limited(room_bytes=64 * 1024)
    peers: list[Client] = []
    while (answer := join(client := harness.connected(f"peer{len(peers)}"), appData="x" * 9000)).get("ok"):
        peers.append(client)
    check_refused(harness, client, answer, 429, "room")
    assert len(peers) > 1
    assert client.peer not in harness.room.peers

    peers[0].notify("leave")

    assert join(client, appData="x" * 9000)["ok"]


def test_join_beyond_a_peers_share_is_refused_and_notifies_nobody() -> None:
    harness = limited(peer_bytes=20_000)
    alice = harness.joined("alice", {"codecs": [], "headerExtensions": []})

    answer = join(harness.connected("bob"), appData="x" * 16_000)

    assert error_of(answer)[0] == 413
    assert alice.methods == []


@pytest.mark.parametrize(
    "touch",
    [
        lambda bob, id_: bob.notify_asking("pauseConsumer", id=id_),
        lambda bob, id_: bob.notify_asking("setConsumerPreferredProfile", id=id_, profile="low"),
        lambda bob, id_: bob.notify_asking("enableConsumerStats", id=id_),
        lambda bob, id_: bob.enable(id_),
    ],
    ids=["pause", "profile", "stats", "enable"],
)
def test_consumer_beyond_the_share_is_refused_and_not_stored(touch: Any) -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    consumers = [alice.produce(id_, "video") for id_ in (10, 11)]
    assert bob.enable(consumers[0])["ok"]
    harness.limits = Limits(peer_bytes=harness.room.budget.by_peer["bob"])
    harness.crash()
    before = snapshot(harness.room)

    check_refused(harness, bob, touch(bob, consumers[1]), 413, "peer")

    assert {**snapshot(harness.room), "session|bob": 0} == {**before, "session|bob": 0}
    assert not harness.room.stats_due
    assert bob.notify_asking("pauseConsumer", id=consumers[0])["ok"], "one that is stored may change"


def test_update_of_a_producer_beyond_the_share_is_refused() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    alice.produce(10)
    harness.limits = Limits(peer_bytes=harness.room.budget.by_peer["alice"] + 100)
    harness.crash()
    encodings = [{"ssrc": 7, "encodingId": "r" * 200}]

    answer = alice.notify_asking("updateProducer", id=10, rtpParameters={**OPUS, "encodings": encodings})

    check_refused(harness, alice, answer, 413, "peer")
    assert harness.room.peers["alice"].producers[10].rtp_parameters.encodings[0].ssrc == 1111


def test_connection_to_a_room_without_bytes_left_is_closed_with_1013() -> None:
    harness = limited(room_bytes=10 * 1024)
    clients = [harness.connected(f"peer{n}") for n in range(12)]

    codes = [client.close_code for client in clients]

    assert codes[0] is None
    assert codes[-1] == UNAVAILABLE.code
    assert books(harness)[0] <= 10 * 1024
    assert books(harness) == _loaded(harness)
    clients[0].disconnect()
    assert harness.connected("late").close_code is None


def test_peer_that_connects_again_to_a_full_room_keeps_its_first_connection() -> None:
    harness = limited(room_bytes=SESSION_BYTES + 100)
    first = harness.connected("alice")
    second = harness.connected("alice")

    assert (first.close_code, second.close_code) == (None, UNAVAILABLE.code)


# --- the worker ---------------------------------------------------------------------------------------------------


def test_rooms_of_a_worker_without_bytes_left_grow_no_more() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    harness.services.total.limit = harness.services.total.used

    answer = alice.ask("createTransport", id=1, direction="send")

    check_refused(harness, alice, answer, 503, "the room worker has as many bytes of rooms as it takes")
    harness.services.total.used = 0
    assert alice.ask("createTransport", id=1, direction="send")["ok"]


@pytest.mark.parametrize(("limits", "worker", "code"), [({"room_bytes": 2**20}, 2**63, 429), ({}, 2**20, 503)])
def test_few_greedy_peers_leave_half_of_the_bytes_to_modest_ones(
    limits: dict[str, int], worker: int, code: int
) -> None:
    harness = limited(peer_bytes=512 * 1024, **limits)
    harness.services.total.limit = worker
    harness.services.total.used = 0
    codes = []
    for n in range(8):
        greedy = harness.joined(f"greedy{n}")
        for id_ in range(16):
            answer = greedy.ask("createTransport", id=id_, direction="send", appData="x" * 16_000)
            codes.append(answer.get("errorCode", 200))
    assert codes.count(200) > 16
    assert codes[-1] == code

    modest = harness.joined("modest")

    assert modest.ask("createTransport", id=1, direction="send", appData="x" * 16_000)["ok"]


def test_worker_total_has_what_its_rooms_add() -> None:
    total = WorkerTotal(1000)
    one, other = budget.Budget(total), budget.Budget(total)
    one.add("alice", 400)
    other.add_to_room(500)
    one.add("alice", -400)

    assert (one.total, one.by_peer, total.used) == (0, {}, 900), (
        "what is given back is found when all is counted anew"
    )


# --- the server API -----------------------------------------------------------------------------------------------


def test_settings_of_a_created_room_count_until_it_is_given_up() -> None:
    harness = RoomHarness()
    backend = Backend(harness)
    backend.do("createRoom", appData="x" * 500, codecs=[{"kind": "audio", "name": "opus", "clockRate": 48000}])
    assert books(harness)[0] > 500
    assert books(harness) == _loaded(harness)
    backend.do("createRoom", appData="x" * 400, codecs=[{"kind": "audio", "name": "opus", "clockRate": 48000}])
    assert books(harness) == _loaded(harness)
    alice = harness.joined("alice", {"codecs": [], "headerExtensions": []})

    backend.do("closeRoom")

    assert alice.close_code is not None
    assert books(harness) == (0, {}) == _loaded(harness)


def test_stored_answers_to_calls_have_a_limit_of_bytes() -> None:
    harness = RoomHarness()
    backend = Backend(harness)
    for n in range(4):
        join(harness.connected(f"peer{n}"), appData="x" * 10_000)
    for n in range(60):
        backend.do("createRoom", key=f"created{n}")
    stored = harness.answered_calls
    assert 10 < len(stored) < 60
    assert "created59" in stored
    assert sum(len(answer.body) for answer in stored.values()) <= 1024 * 1024
    for n in range(4, 8):
        join(harness.connected(f"peer{n}"), appData="x" * 10_000)

    code, view = backend.call("createRoom", key="large")

    assert (code, len(view["peers"])) == (200, 8)
    assert "large" not in harness.answered_calls
    assert "created59" in harness.answered_calls


def test_executor_of_a_new_room_has_an_empty_budget() -> None:
    harness = RoomHarness()
    assert isinstance(harness.executor, Executor)
    assert json.loads(json.dumps(harness.room.budget.by_peer)) == {}
