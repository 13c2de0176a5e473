"""Media objects: no request is carried out twice, no order is undone, and no closed object is made again."""

from typing import Any

import pytest

from medianode.engines.null import NullEngine
from medianode.object_registry import ObjectRegistry
from shared.protocol import media
from shared.protocol.media import Close, Consumed, Failed, Pause, Produced, ProfileChanged, Resume
from shared.protocol.rtp import DtlsParameters, Fingerprint, IceParameters

CREATED = media.TransportCreated(IceParameters("u", "p", True), [], DtlsParameters([Fingerprint("sha-256", "A")]))
CONNECTED = media.TransportConnected("server")


@pytest.fixture
def objects(engine: Any) -> ObjectRegistry:
    objects = ObjectRegistry()
    objects.add_engine(engine)
    return objects


@pytest.fixture
def room(objects: ObjectRegistry, engine: Any, requests: Any) -> ObjectRegistry:
    """A router with a transport, a producer and a consumer of it on another transport."""
    for request in (
        requests.create(),
        requests.create("receiving"),
        requests.produce(),
        requests.consume(transport="receiving"),
    ):
        objects.request(request, lambda _: None)
    engine.answer(CREATED)
    engine.answer(CREATED)
    engine.answer(Produced())
    engine.answer(Consumed("none"))
    return objects


def ask(objects: ObjectRegistry, request: media.AnyRequest) -> list[media.AnyResult]:
    results: list[media.AnyResult] = []
    objects.request(request, results.append)
    return results


def failure(results: list[media.AnyResult]) -> int:
    (result,) = results
    assert isinstance(result, Failed)
    return result.code


# --- requests -------------------------------------------------------------------------------------------------


def test_first_request_creates_the_router(objects: ObjectRegistry, engine: Any, requests: Any) -> None:
    ask(objects, requests.create())
    ask(objects, requests.create("second"))
    assert engine.routers == ["router"]


def test_repeated_request_is_answered_from_memory(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    assert ask(room, requests.create()) == [CREATED]
    assert ask(room, requests.produce()) == [Produced()]
    assert engine.requests == []


def test_concurrent_duplicates_share_one_call(objects: ObjectRegistry, engine: Any, requests: Any) -> None:
    first, second = ask(objects, requests.create()), ask(objects, requests.create())
    assert len(engine.requests) == 1
    engine.answer(CREATED)
    assert first == second == [CREATED]


def test_connect_is_remembered_apart_from_create(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    first = ask(room, requests.connect())
    engine.answer(CONNECTED)
    assert first == ask(room, requests.connect()) == [CONNECTED]
    assert ask(room, requests.create()) == [CREATED]


def test_failed_create_leaves_no_object_and_may_be_repeated(
    objects: ObjectRegistry, engine: Any, requests: Any
) -> None:
    first = ask(objects, requests.create())
    engine.answer(Failed(400, "bad"))
    assert failure(first) == 400
    assert objects.counts().transports == 0
    second = ask(objects, requests.create())
    engine.answer(CREATED)
    assert second == [CREATED]


def test_failed_connect_leaves_the_transport(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    first = ask(room, requests.connect())
    engine.answer(Failed(400, "bad"))
    assert failure(first) == 400
    assert ask(room, requests.create()) == [CREATED]
    ask(room, requests.connect())
    assert len(engine.requests) == 1


def test_ice_restarts_anew_for_a_new_generation_only(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    first, second = (
        media.IceRestarted(IceParameters("1", "1", True)),
        media.IceRestarted(IceParameters("2", "2", True)),
    )
    assert ask(room, requests.restart(1)) == []
    engine.answer(first)
    assert ask(room, requests.restart(1)) == [first]
    ask(room, requests.restart(2))
    engine.answer(second)
    assert ask(room, requests.restart(2)) == [second]
    assert ask(room, requests.restart(1)) == [second], "only the newest parameters are in force"
    assert engine.requests == []


def test_producer_is_updated_once_a_generation(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    first = ask(room, requests.update(1))
    again = ask(room, requests.update(1))
    assert len(engine.requests) == 1
    engine.answer(Produced())
    assert first == again == ask(room, requests.update(1)) == [Produced()]
    ask(room, requests.update(2))
    engine.answer(Produced())
    assert ask(room, requests.update(1)) == [Produced()], "an older one has no effect"
    assert engine.requests == []
    assert ask(room, requests.produce()) == [Produced()]


def test_failed_update_leaves_the_producer_and_may_be_repeated(
    room: ObjectRegistry, engine: Any, requests: Any
) -> None:
    first = ask(room, requests.update(1))
    engine.answer(Failed(409, "fixed"))
    assert failure(first) == 409
    second = ask(room, requests.update(1))
    engine.answer(Produced())
    assert second == [Produced()]
    assert room.counts().producers == 1


def test_closed_producer_is_not_updated(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    room.order(Close("producer", 5, "producer"))
    assert failure(ask(room, requests.update(1))) == 404


def test_stats_are_never_remembered(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    for _ in range(2):
        results = ask(room, requests.stats("transport"))
        engine.answer(media.Stats([]))
        assert results == [media.Stats([])]


def test_requests_for_unknown_objects_are_not_found(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    assert failure(ask(room, requests.connect("nowhere"))) == 404
    assert failure(ask(room, requests.produce("p", transport="nowhere"))) == 404
    assert failure(ask(room, requests.consume("c", producer="nobody"))) == 404
    assert failure(ask(room, requests.stats("producer", "consumer"))) == 409
    assert engine.requests == []


def test_id_is_never_taken_over_by_another_room(room: ObjectRegistry, engine: Any, other_room: Any) -> None:
    assert failure(ask(room, other_room.create("transport"))) == 409


def test_repeated_consume_returns_the_present_profile(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    room.router_of(ProfileChanged("consumer", "high"))
    assert ask(room, requests.consume(transport="receiving")) == [Consumed("high")]


# --- orders ---------------------------------------------------------------------------------------------------


def test_orders_reach_the_engine_with_the_parent(room: ObjectRegistry, engine: Any) -> None:
    pause = Pause("producer", 5, "producer")
    room.order(pause)
    assert engine.orders == [(pause, "transport")]


def test_older_order_is_ignored(room: ObjectRegistry, engine: Any) -> None:
    room.order(Pause("producer", 5, "producer"))
    room.order(Resume("producer", 4, "producer"))
    room.order(Close("producer", 4, "producer"))
    assert len(engine.orders) == 1


def test_orders_of_one_commit_are_all_carried_out(room: ObjectRegistry, engine: Any) -> None:
    room.order(Pause("producer", 5, "producer"))
    room.order(Resume("producer", 5, "producer"))
    assert len(engine.orders) == 2


def test_older_order_for_another_property_is_carried_out(room: ObjectRegistry, engine: Any) -> None:
    """Orders are sent again after a loss, when newer ones may have come already."""
    pause, profile = Pause("consumer", 6, "consumer"), media.SetPreferredProfile("consumer", 5, "low")
    for order in (
        pause,
        profile,
        Resume("consumer", 4, "consumer"),
        media.SetPreferredProfile("consumer", 3, "high"),
    ):
        room.order(order)
    assert [order for order, _ in engine.orders] == [pause, profile]


def test_order_for_another_kind_or_unknown_object_is_ignored(room: ObjectRegistry, engine: Any) -> None:
    room.order(Pause("producer", 5, "consumer"))
    room.order(Pause("nobody", 5, "consumer"))
    assert engine.orders == []


def test_order_before_the_answer_to_its_request_is_carried_out(
    objects: ObjectRegistry, engine: Any, requests: Any
) -> None:
    ask(objects, requests.create())
    objects.order(Close("transport", 1, "transport"))
    assert len(engine.orders) == 1


# --- closing --------------------------------------------------------------------------------------------------


def test_closing_a_producer_closes_its_consumers_elsewhere(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    room.order(Close("producer", 5, "producer"))
    assert failure(ask(room, requests.consume(transport="receiving"))) == 404
    assert room.counts().load == 2


def test_closing_a_transport_closes_its_producers_and_consumers(
    room: ObjectRegistry, engine: Any, requests: Any
) -> None:
    room.order(Close("transport", 5, "transport"))
    assert failure(ask(room, requests.produce())) == 404
    assert failure(ask(room, requests.consume(transport="receiving"))) == 404
    assert room.counts().load == 1
    assert len(engine.orders) == 1, "the engine closes the rest by itself"


def test_closing_a_router_closes_all(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    room.order(Close("router", 5, "router"))
    assert room.counts().load == 0
    assert failure(ask(room, requests.create("new"))) == 404
    assert room.routers() == []


def test_request_after_a_close_creates_nothing(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    room.order(Close("transport", 5, "transport"))
    assert failure(ask(room, requests.create())) == 404


def test_close_that_overtakes_its_request_is_remembered(room: ObjectRegistry, engine: Any, requests: Any) -> None:
    room.order(Close("late", 5, "producer"))
    assert failure(ask(room, requests.produce("late"))) == 404
    assert engine.requests == []


# --- engines --------------------------------------------------------------------------------------------------


def test_router_goes_to_the_least_loaded_engine(
    room: ObjectRegistry, engine: Any, other_engine: Any, requests: Any, other_room: Any
) -> None:
    room.add_engine(other_engine)
    ask(room, other_room.create("t2"))
    assert other_engine.routers == ["other router"]
    ask(room, requests.create("t3"))
    assert len(engine.requests) == 1, "a room stays where it is"


def test_engine_that_ended_removes_its_routers(
    room: ObjectRegistry, engine: Any, other_engine: Any, requests: Any
) -> None:
    room.add_engine(other_engine)
    assert room.remove_engine(engine, "killed") == [requests.router]
    assert failure(ask(room, requests.create("new"))) == 503
    assert failure(ask(room, requests.stats("transport"))) == 503
    assert room.counts().load == 0
    assert other_engine.routers == []


def test_without_an_engine_requests_are_unavailable(requests: Any) -> None:
    assert failure(ask(ObjectRegistry(), requests.create())) == 503


# --- events ---------------------------------------------------------------------------------------------------


def test_event_concerns_the_objects_router(room: ObjectRegistry, requests: Any) -> None:
    assert room.router_of(media.IceStateChanged("transport", "connected")) == requests.router
    assert room.router_of(media.IceStateChanged("unknown", "connected")) is None


def test_unchanged_profile_is_not_reported(room: ObjectRegistry, requests: Any) -> None:
    assert room.router_of(ProfileChanged("consumer", "low")) == requests.router
    assert room.router_of(ProfileChanged("consumer", "low")) is None


# --- the null engine ------------------------------------------------------------------------------------------


def test_null_engine_answers_everything_consistently(requests: Any) -> None:
    objects = ObjectRegistry()
    objects.add_engine(NullEngine("192.0.2.7"))
    (created,) = ask(objects, requests.create(dtls_parameters=requests.connect().dtls_parameters))
    assert isinstance(created, media.TransportCreated)
    assert created.dtls_parameters.role == "server"
    assert created.ice_candidates[0].ip == "192.0.2.7"
    assert ask(objects, requests.produce()) == [Produced()]
    assert ask(objects, requests.consume()) == [Consumed("default")]
    assert ask(objects, requests.update(1)) == [Produced()]
    (restarted,) = ask(objects, requests.restart(1))
    assert isinstance(restarted, media.IceRestarted)
    assert restarted.ice_parameters != created.ice_parameters


def test_paused_objects_are_counted(room: ObjectRegistry, requests: Any) -> None:
    ask(room, requests.produce("second", paused=True))
    room.order(Pause("consumer", 5, "consumer"))
    room.order(Pause("consumer", 6, "consumer"))
    assert room.counts().paused == 2
    room.order(Resume("second", 7, "producer"))
    assert room.counts().paused == 1
    room.order(Close("transport", 8, "transport"))
    assert room.counts().paused == 0
