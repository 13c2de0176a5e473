"""Stats: §enableTransportStats … §disableConsumerStats and their reports."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from roomworker.core.stats import REPORTERS_LIMIT
from shared.protocol import media
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import OPUS, Json, error_of
from tests.unit.roomworker.room_harness import RoomHarness

KINDS = ("Transport", "Producer", "Consumer")
STATS: list[dict[str, Any]] = [{"type": "x", "ssrc": 7, "nested": {"a": [1]}}]


@dataclass
class StatsReporters:
    """bob has stats of transport 2, of producer 20 on transport 1, and of the consumer of alice's producer."""

    harness: RoomHarness
    alice: Client
    bob: Client
    consumer: int
    backend: Backend

    def id(self, kind: str) -> int:
        return {"Transport": 2, "Producer": 20, "Consumer": self.consumer}[kind]

    def enable(self, kind: str, **more: Any) -> None:
        self.bob.notify(f"enable{kind}Stats", id=self.id(kind), **more)

    def disable(self, kind: str) -> None:
        self.bob.notify(f"disable{kind}Stats", id=self.id(kind))

    def tick(self, *seconds: float) -> list[int]:
        """The number of stats requests at each tick."""
        made = []
        for second in seconds:
            before = len(self.requests)
            self.harness.tick(second)
            made.append(len(self.requests) - before)
        return made

    @property
    def requests(self) -> list[media.GetStats]:
        return [request for request in self.harness.requests if isinstance(request, media.GetStats)]

    def notifications_of(self, kind: str) -> list[Json]:
        return self.bob.notifications_of(f"{kind.lower()}Stats")


@pytest.fixture
def seen() -> StatsReporters:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.sending("bob")
    bob.ask("createTransport", id=2, direction="recv")
    consumer = alice.produce(10)
    bob.produce(20)
    assert bob.enable(consumer)["ok"]
    bob.clear_sent()
    return StatsReporters(harness, alice, bob, consumer, Backend(harness))


# --- reports ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_first_stats_report_goes_only_to_the_requester(seen: StatsReporters, kind: str) -> None:
    seen.alice.clear_sent()
    seen.harness.prompt = False

    seen.enable(kind, interval=1000)
    assert len(seen.harness.pending_requests) == 1, "the request is made before any tick or commit"
    seen.harness.answer(media.Stats(STATS))
    seen.harness.commit()

    report = {"id": seen.id(kind), "stats": STATS}
    assert seen.notifications_of(kind) == [{**report, "peerName": "alice"} if kind == "Consumer" else report]
    assert seen.alice.frames == []


@pytest.mark.parametrize("kind", KINDS)
def test_stats_request_to_the_node_has_the_clients_ids(seen: StatsReporters, kind: str) -> None:
    bob = seen.harness.room.peers["bob"]
    engine, on = {
        "Transport": (bob.transports[2].engine, 2),
        "Producer": (bob.producers[20].engine, 1),
        "Consumer": (bob.consumers[seen.consumer].engine, 2),
    }[kind]

    seen.enable(kind)

    (asked,) = seen.requests
    assert (asked.kind, asked.object, asked.id, asked.transport_id) == (kind.lower(), engine, seen.id(kind), on)


def test_sending_transport_reports_stats(seen: StatsReporters) -> None:
    seen.alice.notify("enableTransportStats", id=1)

    assert seen.alice.notifications_of("transportStats") == [{"id": 1, "stats": []}]


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", [1, 0, -5, 999.5, 1000])
def test_stats_interval_is_at_least_a_second(seen: StatsReporters, kind: str, interval: float) -> None:
    seen.enable(kind, interval=interval)

    assert seen.tick(11, 11.4, 12, 13, 14) == [1, 0, 1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_stats_interval_defaults_to_a_second(seen: StatsReporters, kind: str) -> None:
    seen.enable(kind)

    assert seen.tick(11, 12, 13) == [1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_longer_stats_interval_counts_from_the_first_report(seen: StatsReporters, kind: str) -> None:
    seen.enable(kind, interval=3000)
    assert len(seen.requests) == 1

    assert seen.tick(11, 12, 13, 14, 15, 16, 17) == [0, 0, 1, 0, 0, 1, 0]


def test_ticks_that_are_late_by_milliseconds_delay_no_report(seen: StatsReporters) -> None:
    seen.enable("Transport", interval=2000)

    assert seen.tick(11, 12.1, 13.05, 13.99, 15.2) == [0, 1, 0, 1, 0]


def test_huge_stats_interval_is_no_defect(seen: StatsReporters) -> None:
    seen.enable("Transport", interval=1e300)

    assert seen.tick(11, 12) == [0, 0]
    assert seen.harness.reloaded().stats_due
    assert not seen.harness.defects


@pytest.mark.parametrize("kind", KINDS)
def test_enabling_stats_again_keeps_the_first_interval(seen: StatsReporters, kind: str) -> None:
    seen.enable(kind, interval=5000)
    seen.enable(kind, interval=1000)

    assert len(seen.requests) == 1
    assert seen.tick(11, 12, 13) == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_disabled_stats_stop_and_start_anew_when_enabled(seen: StatsReporters, kind: str) -> None:
    seen.enable(kind, interval=5000)
    seen.disable(kind)
    assert seen.tick(11, 20) == [0, 0]
    assert not seen.harness.executor.needs_ticks

    seen.enable(kind, interval=1000)
    assert len(seen.requests) == 2
    assert seen.tick(21, 22) == [1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_report_pending_when_stats_are_disabled_is_not_sent(seen: StatsReporters, kind: str) -> None:
    seen.harness.prompt = False
    seen.enable(kind)
    seen.disable(kind)

    seen.harness.answer(media.Stats(STATS))
    seen.harness.commit()

    assert seen.notifications_of(kind) == []


def test_disabling_stats_that_were_not_enabled_changes_nothing(seen: StatsReporters) -> None:
    fields = dict(seen.harness.fields)

    for kind in KINDS:
        seen.disable(kind)

    assert {**seen.harness.fields, "session|bob": b""} == {**fields, "session|bob": b""}


# --- silence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "silent"),
    [
        ("producer", "Producer"),
        ("consumer", "Consumer"),
        ("source", "Consumer"),
        ("producer, by the server", "Producer"),
        ("consumer, by the server", "Consumer"),
    ],
)
def test_paused_object_reports_no_stats_until_it_is_resumed(seen: StatsReporters, what: str, silent: str) -> None:
    set_paused(seen, what, paused=True)
    for kind in KINDS:
        seen.enable(kind)
    reports = [len(seen.notifications_of(kind)) for kind in KINDS]
    assert reports == [0 if kind == silent else 1 for kind in KINDS], "the first report is not sent either"
    assert seen.tick(11, 12) == [2, 2]

    set_paused(seen, what, paused=False)

    assert seen.tick(13, 14) == [3, 3]
    set_paused(seen, what, paused=True)
    assert seen.tick(15) == [2]


def set_paused(seen: StatsReporters, what: str, *, paused: bool) -> None:
    do = "pause" if paused else "resume"
    match what:
        case "producer":
            seen.bob.notify(f"{do}Producer", id=20)
        case "consumer":
            seen.bob.notify(f"{do}Consumer", id=seen.consumer)
        case "source":
            seen.alice.notify(f"{do}Producer", id=10)
        case "producer, by the server":
            seen.backend.do(f"{do}Producer", peer="bob", id=20)
        case "consumer, by the server":
            seen.backend.do(f"{do}Consumer", peer="bob", id=seen.consumer)


def test_report_of_an_object_paused_meanwhile_is_not_sent(seen: StatsReporters) -> None:
    seen.harness.prompt = False
    seen.enable("Producer")
    seen.bob.notify("pauseProducer", id=20)

    seen.harness.answer(media.Stats(STATS))
    seen.harness.commit()

    assert seen.notifications_of("Producer") == []


def test_disabled_consumer_reports_no_stats_until_it_is_enabled(seen: StatsReporters) -> None:
    carol = seen.harness.receiving("carol")
    carol.notify("enableConsumerStats", id=seen.consumer)
    assert seen.tick(11) == [0]

    carol.enable(seen.consumer)
    assert seen.tick(12) == [1]
    carol.notify("closeTransport", id=2)
    assert seen.tick(13) == [0]

    carol.ask("createTransport", id=2, direction="recv")
    carol.enable(seen.consumer)
    assert seen.tick(14) == [1]
    assert len(carol.notifications_of("consumerStats")) == 2


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("Transport", lambda seen: seen.bob.notify("closeTransport", id=2)),
        ("Producer", lambda seen: seen.bob.notify("closeProducer", id=20)),
        ("Producer", lambda seen: seen.bob.notify("closeTransport", id=1)),
        ("Consumer", lambda seen: seen.alice.notify("closeProducer", id=10)),
        ("Consumer", lambda seen: seen.bob.notify("leave")),
        ("Transport", lambda seen: seen.bob.disconnect()),
        ("Transport", lambda seen: seen.harness.event(media.RouterClosed(seen.harness.room.router.id, "died"))),
    ],
)
@pytest.mark.parametrize("under_way", [False, True])
def test_closed_object_reports_no_stats(seen: StatsReporters, kind: str, end: Any, under_way: bool) -> None:
    seen.harness.prompt = not under_way
    seen.enable(kind)
    before = len(seen.notifications_of(kind))

    end(seen)
    if under_way:
        seen.harness.commit()
        seen.harness.answer(media.Stats(STATS))
        seen.harness.commit()

    assert seen.tick(11, 12) == [0, 0]
    assert len(seen.notifications_of(kind)) == before
    assert seen.harness.room.stats_due == {}


def test_late_report_of_a_closed_object_is_not_its_successors(seen: StatsReporters) -> None:
    seen.harness.prompt = False
    seen.enable("Producer")
    seen.bob.notify("closeProducer", id=20)
    seen.bob.request("createProducer", id=20, kind="audio", transportId=1, rtpParameters=OPUS)
    seen.harness.answer(at=1)
    seen.enable("Producer")

    seen.harness.answer(media.Stats(STATS))
    seen.harness.answer(media.Stats([]))
    seen.harness.commit()

    assert seen.notifications_of("Producer") == [{"id": 20, "stats": []}]


@pytest.mark.parametrize("kind", KINDS)
def test_failed_report_is_requested_again_at_the_next_tick(seen: StatsReporters, kind: str) -> None:
    seen.harness.prompt = False
    seen.enable(kind)
    seen.harness.fail()
    seen.harness.commit()
    assert seen.notifications_of(kind) == []

    assert seen.tick(11) == [1]
    seen.harness.answer(media.Stats(STATS))
    seen.harness.commit()

    assert [report["stats"] for report in seen.notifications_of(kind)] == [STATS]


@pytest.mark.parametrize("mux_id", [None, "1"], ids=["in place", "by another"])
def test_updated_producer_continues_to_report_stats(seen: StatsReporters, mux_id: str | None) -> None:
    seen.bob.notify("closeProducer", id=20)
    seen.bob.produce(20, rtpParameters={**OPUS, "muxId": mux_id})
    seen.enable("Producer", interval=1000)

    seen.bob.notify("updateProducer", id=20, rtpParameters={**OPUS, "encodings": [{"ssrc": 7}]})

    assert seen.tick(11, 12) == [1, 1]
    assert seen.requests[-1].object == seen.harness.room.peers["bob"].producers[20].engine


@pytest.mark.parametrize("kind", KINDS)
def test_stats_continue_after_a_takeover_from_the_first_tick(seen: StatsReporters, kind: str) -> None:
    seen.enable(kind, interval=3000)

    seen.harness.crash()

    assert seen.harness.executor.needs_ticks
    assert seen.tick(21, 22, 23, 24) == [1, 0, 0, 1]
    assert len(seen.notifications_of(kind)) == 3
    seen.disable(kind)
    seen.harness.crash()
    assert seen.tick(31) == [0]


def test_first_report_is_sent_after_a_takeover_if_the_worker_crashed(seen: StatsReporters) -> None:
    seen.harness.prompt = False
    seen.enable("Transport")
    seen.harness.commit()

    seen.harness.crash()

    assert seen.tick(11) == [1]
    seen.harness.answer(media.Stats(STATS))
    seen.harness.commit()
    assert len(seen.notifications_of("Transport")) == 1


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("do", ["enable", "disable"])
@pytest.mark.parametrize(("fields", "code"), [({"id": 77}, 404), ({"id": "x"}, 400), ({}, 400)])
def test_unknown_object_of_stats_is_named_in_the_error(
    seen: StatsReporters, do: str, kind: str, fields: Json, code: int
) -> None:
    answer = error_of(seen.bob.notify_asking(f"{do}{kind}Stats", **fields))

    assert answer[0] == code
    assert answer[1].startswith("id: ")


@pytest.mark.parametrize("interval", ["1000", None, {}])
def test_stats_interval_that_is_no_number_is_rejected(seen: StatsReporters, interval: Any) -> None:
    answer = error_of(seen.bob.notify_asking("enableTransportStats", id=2, interval=interval))

    assert answer[0] == 400
    assert answer[1].startswith("interval: ")
    assert seen.tick(11) == [0]


def test_objects_of_a_peer_that_report_stats_are_limited() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    harness.limits = replace(harness.limits, transports_per_peer=1000)
    harness.crash()
    for id_ in range(REPORTERS_LIMIT + 1):
        assert alice.ask("createTransport", id=id_, direction="send")["ok"]
    for id_ in range(REPORTERS_LIMIT):
        assert alice.notify_asking("enableTransportStats", id=id_)["ok"]

    refused = error_of(alice.notify_asking("enableTransportStats", id=REPORTERS_LIMIT))

    assert refused == (429, f"stats of a peer: at most {REPORTERS_LIMIT}")
    assert len(harness.room.stats_due) == REPORTERS_LIMIT
    alice.notify("disableTransportStats", id=0)
    assert alice.notify_asking("enableTransportStats", id=REPORTERS_LIMIT)["ok"]
