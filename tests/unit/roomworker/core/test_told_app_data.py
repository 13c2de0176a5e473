"""The appData that everybody is told who joins: bounded for a peer with its producers, and for the room."""

import json
from typing import Any

from roomworker.core.limits import Limits
from roomworker.core.told_app_data import PEER_PARTS, ROOM_PARTS
from tests.unit.roomworker.harness_client import Client
from tests.unit.roomworker.payloads import CAPABILITIES, OPUS, Json, error_of
from tests.unit.roomworker.room_harness import RoomHarness

LARGEST = 1000


def limited() -> RoomHarness:
    harness = RoomHarness()
    harness.limits = Limits(app_data_bytes=LARGEST, peers=10_000)
    harness.crash()
    return harness


def join(client: Client, **more: Any) -> Json:
    return client.ask("join", peerName=client.peer, rtpCapabilities=CAPABILITIES, **more)


def produce(client: Client, id_: int, size: int) -> Json:
    encodings = [{"ssrc": 1000 + id_}]
    return client.ask(
        "createProducer",
        id=id_,
        kind="audio",
        transportId=1,
        rtpParameters={**OPUS, "muxId": str(id_), "encodings": encodings},
        appData="x" * (size - 2),
    )


def test_peer_with_all_its_producers_tells_a_few_times_the_largest_app_data() -> None:
    alice = limited().sending("alice")
    answers = [produce(alice, id_, LARGEST) for id_ in range(PEER_PARTS + 2)]

    assert [answer.get("errorCode", 200) for answer in answers] == [200] * PEER_PARTS + [413] * 2
    assert error_of(answers[-1])[1].startswith("appData: ")
    alice.notify("closeProducer", id=0)
    assert produce(alice, 100, LARGEST)["ok"]


def test_room_tells_no_more_than_its_share_and_the_little_of_modest_peers() -> None:
    harness = limited()
    greedy: list[Json] = []
    while (answer := join(harness.connected(f"greedy{len(greedy)}"), appData="x" * (LARGEST - 2))).get("ok"):
        greedy.append(answer)

    assert error_of(answer)[0] == 429
    assert len(greedy) == ROOM_PARTS
    assert len(json.dumps(greedy[-1])) < (ROOM_PARTS + 100) * LARGEST
    modest = harness.sending("modest")
    assert produce(modest, 1, LARGEST // 8)["ok"]
    assert error_of(produce(modest, 2, LARGEST // 4))[0] == 429
