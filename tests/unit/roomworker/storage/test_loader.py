"""A room read again is the room that was stored."""

import json
import tracemalloc
from functools import partial

import msgspec
import pytest

from roomworker.core.limits import DEFAULTS, Limits
from roomworker.storage.loader import RECORD_BYTES, RoomTooLarge, load
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.room_harness import RoomHarness
from tests.unit.roomworker.room_snapshots import indexes, snapshot

NAMES = ["bob", "a|b", "producer|1|x", "meta", "v", "peer|", "日本", "}{%", '"', "|" * 5]


def full(name: str) -> tuple[RoomHarness, Client, Client]:
    """Somebody of that name who sends and receives, with one who does too."""
    harness = RoomHarness(name)
    one, other = harness.sending(name), harness.sending("other")
    for it in (one, other):
        it.ask("createTransport", id=2, direction="recv", appData={"n": name})
    for it, receiver in ((one, other), (other, one)):
        receiver.enable(it.produce(10, appData=name), paused=True)
        receiver.enable(it.produce(11, "video"))
        it.notify("pauseProducer", id=11)
    return harness, one, other


@pytest.mark.parametrize("name", NAMES)
def test_loaded_room_is_complete_whatever_its_peers_are_called(name: str) -> None:
    harness, _, _ = full(name)

    assert snapshot(harness.reloaded()) == snapshot(harness.room)
    assert indexes(harness.reloaded()) == indexes(harness.room)
    assert set(harness.fields) == set(snapshot(harness.room))


def test_the_order_of_the_fields_does_not_matter() -> None:
    harness, _, _ = full("bob")
    backwards = dict(reversed(harness.fields.items()))

    room = load(harness.name, 0, "incarnation", harness.n, backwards, harness.closed_sessions)

    assert indexes(room) == indexes(harness.room)


def test_loaded_room_continues_as_before() -> None:
    harness, bob, other = full("bob")
    harness.crash()

    bob.notify("resumeProducer", id=11)
    bob.notify("closeProducer", id=10)

    assert other.methods[-2:] == ["consumerResumed", "consumerClosed"]
    before = harness.room.meta.numbers
    assert bob.produce(12) > before, "the id of no other consumer"


def test_engine_ids_are_never_used_again_after_loading() -> None:
    harness, bob, _ = full("bob")
    before = {getattr(request, "transport", "") for request in harness.requests}

    bob.notify("closeTransport", id=1)
    harness.crash()
    bob.ask("createTransport", id=1, direction="send")

    assert getattr(harness.requests[-1], "transport", "") not in before


def test_fields_of_a_later_version_are_left_alone() -> None:
    harness, _, _ = full("bob")

    room = load(
        harness.name,
        0,
        "incarnation",
        harness.n,
        {**harness.fields, "whiteboard|1|bob": b"?"},
        harness.closed_sessions,
    )

    assert indexes(room) == indexes(harness.room)


def test_room_of_records_that_are_larger_in_memory_is_not_loaded() -> None:
    """Given what a version without limits stored: 150 joins with 250 KiB of capabilities."""
    harness = RoomHarness()
    alice = harness.joined("alice")
    peer = json.loads(harness.fields["peer|alice"])
    codecs = peer["rtpCapabilities"]["codecs"]
    codecs[0]["parameters"] = {"x": [[{}] * 10] * 8_000}
    fields = dict(harness.fields)
    for n in range(150):
        fields[f"session|p{n}"] = msgspec.json.encode({**json.loads(fields["session|alice"]), "peer": f"p{n}"})
        fields[f"peer|p{n}"] = msgspec.json.encode({**peer, "name": f"p{n}", "number": n + 2})
    assert sum(map(len, fields.values())) < DEFAULTS.room_bytes
    tracemalloc.start()
    with pytest.raises(RoomTooLarge, match=r"^too large: more than 2 times "):
        load(harness.name, 0, "incarnation", harness.n, fields, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 3 * DEFAULTS.room_bytes
    assert alice.close_code is None


def test_room_with_a_record_of_megabytes_is_not_loaded() -> None:
    harness = RoomHarness()
    harness.joined("alice")
    fields = {**harness.fields, "transport|1|alice": b" " * (RECORD_BYTES + 1) + b"{}"}

    with pytest.raises(RoomTooLarge, match=r"^too large: a record of "):
        load(harness.name, 0, "incarnation", harness.n, fields, {})


def test_room_above_a_lowered_limit_is_loaded_up_to_twice_as_large() -> None:
    harness, _, _ = full("bob")
    size = harness.room.budget.total

    for limit, allowed in ((size // 2 + 1, True), (size // 2 - 1000, False)):
        limits = Limits(room_bytes=limit)
        loading = partial(
            load, harness.name, 0, "i", harness.n, harness.fields, harness.closed_sessions, limits=limits
        )
        if allowed:
            assert loading().budget.total == size
        else:
            with pytest.raises(RoomTooLarge):
                loading()
