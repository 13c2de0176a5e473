"""§createTransport, §updateTransport, §restartTransport, §closeTransport."""

import pytest

from shared.protocol import media
from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.kit import DTLS, World, error_of


def test_creating_answers_what_the_node_made() -> None:
    world = World()
    alice = world.joined("alice")

    answer = alice.ask("createTransport", id=7, direction="recv", options={"tcp": False, "preferUdp": True})

    assert answer["data"] == {
        "iceParameters": {"usernameFragment": "fragment", "password": "password", "iceLite": True},
        "iceCandidates": [
            {"foundation": "1", "priority": 1, "ip": "192.0.2.1", "protocol": "udp", "port": 40000, "type": "host"}
        ],
        "dtlsParameters": {"fingerprints": [{"algorithm": "sha-256", "value": "CC:DD"}], "role": "auto"},
    }
    (request,) = world.requests
    assert isinstance(request, media.CreateTransport)
    assert (request.udp, request.tcp, request.prefer_udp, request.dtls_parameters) == (True, False, True, None)


def test_all_of_a_room_are_on_one_router_that_is_closed_when_the_last_leaves() -> None:
    world = World()
    alice, bob = world.sending("alice"), world.sending("bob")
    (router,) = {request.router.id for request in world.requests}

    alice.notify("leave")
    assert router not in [order.object for order in world.orders]
    bob.notify("leave")

    assert world.orders[-1] == media.Close(object=router, v=world.n, kind="router")
    assert world.room.meta.placement is None


def test_a_room_that_filled_again_is_on_a_new_router() -> None:
    world = World()
    first = world.sending("alice")
    first.disconnect()
    world.sending("alice")

    assert len({request.router.id for request in world.requests}) == 2


def test_a_room_that_filled_again_after_its_worker_died_is_on_a_new_router_too() -> None:
    """The node remembers closed routers and refuses to bring one back."""
    world = World()
    world.sending("alice").disconnect()
    world.crash()

    world.sending("alice")

    assert len({request.router.id for request in world.requests}) == 2


def test_without_a_node_creating_is_refused_for_now() -> None:
    world = World()
    world.node = None
    alice = world.joined("alice")

    assert error_of(alice.ask("createTransport", id=1, direction="send"))[0] == 503
    world.node = "another"
    assert alice.ask("createTransport", id=1, direction="send")["ok"]


def test_an_id_is_taken_until_its_transport_is_closed() -> None:
    world = World()
    alice = world.sending("alice")
    engine = world.room.peers["alice"].transports[1].engine

    assert error_of(alice.ask("createTransport", id=1, direction="recv")) == (409, "id: transport 1 exists")
    alice.notify("closeTransport", id=1)
    assert alice.ask("createTransport", id=1, direction="recv")["ok"]

    assert world.orders == [media.Close(object=engine, v=world.n - 1, kind="transport")]
    assert world.room.peers["alice"].transports[1].engine != engine


def test_two_peers_may_use_the_same_ids() -> None:
    world = World()
    world.sending("alice")
    world.sending("bob")

    assert len({request.transport for request in world.requests if isinstance(request, media.CreateTransport)}) == 2


def test_what_the_node_refuses_is_answered_and_nothing_stays_behind() -> None:
    world = World(prompt=False)
    alice = world.joined_slowly("alice")
    id_ = alice.request("createTransport", id=1, direction="send")

    failed = world.fail(503, "no ports left")
    world.commit()

    assert error_of(alice.answers(id_)[0]) == (503, "no ports left")
    assert world.room.peers["alice"].transports == {}
    assert isinstance(failed, media.CreateTransport)
    assert world.orders == [media.Close(object=failed.transport, v=world.n, kind="transport")]

    world.prompt = True
    assert alice.ask("createTransport", id=1, direction="send")["ok"]
    again = world.requests[-1]
    assert isinstance(again, media.CreateTransport)
    assert again.transport != failed.transport, "a closed engine id is never used again"


def test_updating_connects_once() -> None:
    world = World()
    bob = world.receiving("bob")

    bob.notify("updateTransport", id=2, dtlsParameters=DTLS)
    bob.notify("updateTransport", id=2, dtlsParameters=DTLS)

    connects = [request for request in world.requests if isinstance(request, media.ConnectTransport)]
    assert len(connects) == 1
    assert world.room.peers["bob"].transports[2].connected


def test_an_update_without_parameters_does_nothing() -> None:
    world = World()
    bob = world.receiving("bob")
    asked = len(world.requests)

    bob.notify("updateTransport", id=2)

    assert len(world.requests) == asked


def test_a_transport_that_cannot_be_connected_is_closed_and_its_peer_told() -> None:
    world = World()
    alice = world.joined("alice")
    alice.ask("createTransport", id=1, direction="send")
    consumer = alice.produce()
    bob = world.receiving("bob")
    bob.enable(consumer)

    world.prompt = False
    alice.notify("updateTransport", id=1, dtlsParameters=DTLS)
    world.fail(400, "no such fingerprint")
    world.commit()

    assert alice.told("transportClosed") == [{"id": 1}]
    assert bob.told("consumerClosed") == [{"id": consumer, "peerName": "alice"}]
    assert world.room.peers["alice"].transports == {}
    assert world.room.peers["alice"].producers == {}


def test_each_restart_has_a_generation_of_its_own() -> None:
    world = World()
    alice = world.sending("alice")

    first = alice.ask("restartTransport", id=1)["data"]["iceParameters"]
    second = alice.ask("restartTransport", id=1)["data"]["iceParameters"]

    assert (first["usernameFragment"], second["usernameFragment"]) == ("fragment1", "fragment2")


@pytest.mark.parametrize("method", ["restartTransport"])
def test_an_unknown_transport_is_not_found(method: str) -> None:
    alice = World().joined("alice")

    assert error_of(alice.ask(method, id=5)) == (404, "id: no transport 5")


def test_closing_a_transport_closes_its_producers_and_only_disables_its_consumers() -> None:
    world = World()
    alice, bob = world.sending("alice"), world.receiving("bob")
    bob.ask("createTransport", id=1, direction="send")
    of_alice, of_bob = alice.produce(), bob.produce()
    bob.enable(of_alice)
    alice.hush()
    bob.hush()

    bob.notify("closeTransport", id=2)
    assert (alice.frames, bob.frames) == ([], [])
    consumer = world.room.peers["bob"].consumers[of_alice]
    assert not consumer.enabled
    assert world.room.consumers_by_engine == {}

    bob.notify("closeTransport", id=1)
    assert bob.frames == []
    assert alice.told("consumerClosed") == [{"id": of_bob, "peerName": "bob"}]
    assert [type(order) for order in world.orders] == [media.Close, media.Close], "no close for what closes anyway"


def test_a_disabled_consumer_may_be_enabled_on_another_transport() -> None:
    world = World()
    alice, bob = world.sending("alice"), world.receiving("bob")
    consumer = alice.produce()
    bob.enable(consumer)
    bob.notify("closeTransport", id=2)

    bob.ask("createTransport", id=3, direction="recv")
    assert bob.ask("enableConsumer", id=consumer, transportId=3)["ok"]

    engines = [request.consumer for request in world.requests if isinstance(request, media.Consume)]
    assert len(set(engines)) == 2


def test_app_data_is_kept_byte_for_byte() -> None:
    world = World()
    alice = world.joined("alice")
    alice.ask("createTransport", id=1, direction="send", appData={"b": 1.0, "a": [None]})

    assert b'"appData":{"b": 1.0, "a": [null]}' in world.fields["transport|1|alice"]


def test_a_transport_that_the_server_closes_while_it_restarts_stays_closed() -> None:
    world = World()
    alice, backend = world.sending("alice"), Backend(world)
    world.prompt = False
    id_ = alice.request("restartTransport", id=1)

    backend.send(backend.item("closeTransport", peer="alice", id=1))
    world.answer()
    world.commit()

    assert error_of(alice.answers(id_)[0]) == (404, "id: transport 1 was closed")
    assert alice.told("transportClosed") == [{"id": 1}]
    assert world.reloaded().peers["alice"].transports == {}
