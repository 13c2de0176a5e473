"""Transports: §createTransport, §updateTransport, §restartTransport, §closeTransport."""

import pytest

from shared.protocol import media
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.payloads import DTLS, error_of
from tests.unit.roomworker.room_harness import RoomHarness


def test_create_transport_returns_the_media_nodes_parameters() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")

    answer = alice.ask("createTransport", id=7, direction="recv", options={"tcp": False, "preferUdp": True})

    assert answer["data"] == {
        "iceParameters": {"usernameFragment": "fragment", "password": "password", "iceLite": True},
        "iceCandidates": [
            {"foundation": "1", "priority": 1, "ip": "192.0.2.1", "protocol": "udp", "port": 40000, "type": "host"}
        ],
        "dtlsParameters": {"fingerprints": [{"algorithm": "sha-256", "value": "CC:DD"}], "role": "auto"},
    }
    (request,) = harness.requests
    assert isinstance(request, media.CreateTransport)
    assert (request.udp, request.tcp, request.prefer_udp, request.dtls_parameters) == (True, False, True, None)


def test_transports_of_a_room_share_a_router_until_the_last_peer_leaves() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.sending("bob")
    (router,) = {request.router.id for request in harness.requests}

    alice.notify("leave")
    assert router not in [order.object for order in harness.orders]
    bob.notify("leave")

    assert harness.orders[-1] == media.Close(object=router, v=harness.n, kind="router")
    assert harness.room.meta.placement is None


def test_room_that_was_empty_gets_a_new_router() -> None:
    harness = RoomHarness()
    first = harness.sending("alice")
    first.disconnect()
    harness.sending("alice")

    assert len({request.router.id for request in harness.requests}) == 2


def test_room_that_was_empty_gets_a_new_router_after_a_crash() -> None:
    """The node remembers closed routers and rejects requests for them."""
    harness = RoomHarness()
    harness.sending("alice").disconnect()
    harness.crash()

    harness.sending("alice")

    assert len({request.router.id for request in harness.requests}) == 2


def test_create_transport_without_a_media_node_is_unavailable() -> None:
    harness = RoomHarness()
    harness.node = None
    alice = harness.joined("alice")

    assert error_of(alice.ask("createTransport", id=1, direction="send"))[0] == 503
    harness.node = "another"
    assert alice.ask("createTransport", id=1, direction="send")["ok"]


def test_transport_id_is_free_again_after_the_close() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")
    engine = harness.room.peers["alice"].transports[1].engine

    assert error_of(alice.ask("createTransport", id=1, direction="recv")) == (409, "id: transport 1 exists")
    alice.notify("closeTransport", id=1)
    assert alice.ask("createTransport", id=1, direction="recv")["ok"]

    assert harness.orders == [media.Close(object=engine, v=harness.n - 1, kind="transport")]
    assert harness.room.peers["alice"].transports[1].engine != engine


def test_two_peers_may_use_the_same_transport_ids() -> None:
    harness = RoomHarness()
    harness.sending("alice")
    harness.sending("bob")

    assert len({request.transport for request in harness.requests if isinstance(request, media.CreateTransport)}) == 2


def test_transport_that_the_node_rejects_leaves_nothing_behind() -> None:
    harness = RoomHarness(prompt=False)
    alice = harness.joined_slowly("alice")
    id_ = alice.request("createTransport", id=1, direction="send")

    failed = harness.fail(503, "no ports left")
    harness.commit()

    assert error_of(alice.answers(id_)[0]) == (503, "no ports left")
    assert harness.room.peers["alice"].transports == {}
    assert isinstance(failed, media.CreateTransport)
    assert harness.orders == [media.Close(object=failed.transport, v=harness.n, kind="transport")]

    harness.prompt = True
    assert alice.ask("createTransport", id=1, direction="send")["ok"]
    again = harness.requests[-1]
    assert isinstance(again, media.CreateTransport)
    assert again.transport != failed.transport, "a closed engine id is never used again"


def test_update_transport_connects_it_once() -> None:
    harness = RoomHarness()
    bob = harness.receiving("bob")

    bob.notify("updateTransport", id=2, dtlsParameters=DTLS)
    bob.notify("updateTransport", id=2, dtlsParameters=DTLS)

    connects = [request for request in harness.requests if isinstance(request, media.ConnectTransport)]
    assert len(connects) == 1
    assert harness.room.peers["bob"].transports[2].connected


def test_update_transport_without_parameters_does_nothing() -> None:
    harness = RoomHarness()
    bob = harness.receiving("bob")
    asked = len(harness.requests)

    bob.notify("updateTransport", id=2)

    assert len(harness.requests) == asked


def test_transport_that_cannot_be_connected_is_closed_with_a_notification() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    alice.ask("createTransport", id=1, direction="send")
    consumer = alice.produce()
    bob = harness.receiving("bob")
    bob.enable(consumer)

    harness.prompt = False
    alice.notify("updateTransport", id=1, dtlsParameters=DTLS)
    harness.fail(400, "no such fingerprint")
    harness.commit()

    assert alice.notifications_of("transportClosed") == [{"id": 1}]
    assert bob.notifications_of("consumerClosed") == [{"id": consumer, "peerName": "alice"}]
    assert harness.room.peers["alice"].transports == {}
    assert harness.room.peers["alice"].producers == {}


def test_each_ice_restart_has_its_own_generation() -> None:
    harness = RoomHarness()
    alice = harness.sending("alice")

    first = alice.ask("restartTransport", id=1)["data"]["iceParameters"]
    second = alice.ask("restartTransport", id=1)["data"]["iceParameters"]

    assert (first["usernameFragment"], second["usernameFragment"]) == ("fragment1", "fragment2")


@pytest.mark.parametrize("method", ["restartTransport"])
def test_unknown_transport_is_not_found(method: str) -> None:
    alice = RoomHarness().joined("alice")

    assert error_of(alice.ask(method, id=5)) == (404, "id: no transport 5")


def test_closed_transport_closes_its_producers_and_disables_its_consumers() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    bob.ask("createTransport", id=1, direction="send")
    of_alice, of_bob = alice.produce(), bob.produce()
    bob.enable(of_alice)
    alice.clear_sent()
    bob.clear_sent()

    bob.notify("closeTransport", id=2)
    assert (alice.frames, bob.frames) == ([], [])
    consumer = harness.room.peers["bob"].consumers[of_alice]
    assert not consumer.enabled
    assert harness.room.consumers_by_engine == {}

    bob.notify("closeTransport", id=1)
    assert bob.frames == []
    assert alice.notifications_of("consumerClosed") == [{"id": of_bob, "peerName": "bob"}]
    assert [type(order) for order in harness.orders] == [media.Close, media.Close], (
        "the producers close with the transport"
    )


def test_disabled_consumer_may_be_enabled_on_another_transport() -> None:
    harness = RoomHarness()
    alice, bob = harness.sending("alice"), harness.receiving("bob")
    consumer = alice.produce()
    bob.enable(consumer)
    bob.notify("closeTransport", id=2)

    bob.ask("createTransport", id=3, direction="recv")
    assert bob.ask("enableConsumer", id=consumer, transportId=3)["ok"]

    engines = [request.consumer for request in harness.requests if isinstance(request, media.Consume)]
    assert len(set(engines)) == 2


def test_app_data_is_stored_byte_for_byte() -> None:
    harness = RoomHarness()
    alice = harness.joined("alice")
    alice.ask("createTransport", id=1, direction="send", appData={"b": 1.0, "a": [None]})

    assert b'"appData":{"b": 1.0, "a": [null]}' in harness.fields["transport|1|alice"]


def test_transport_closed_by_the_server_during_a_restart_stays_closed() -> None:
    harness = RoomHarness()
    alice, backend = harness.sending("alice"), Backend(harness)
    harness.prompt = False
    id_ = alice.request("restartTransport", id=1)

    backend.send(backend.item("closeTransport", peer="alice", id=1))
    harness.answer()
    harness.commit()

    assert error_of(alice.answers(id_)[0]) == (404, "id: transport 1 was closed")
    assert alice.notifications_of("transportClosed") == [{"id": 1}]
    assert harness.reloaded().peers["alice"].transports == {}
