"""Routers are placed so that the rooms under which engines died are kept apart."""

from collections import Counter
from typing import Any

import pytest

from medianode.engines.port import Engine
from medianode.object_registry import ObjectRegistry
from medianode.placement import SUSPECT_SECONDS
from shared.protocol import media
from tests.unit.medianode.conftest import HeldEngine


class Node:
    """The registry of a node with some engines, and the time."""

    def __init__(self, engines: int, *, spare: bool = False) -> None:
        self.now = 0.0
        self.objects = ObjectRegistry(lambda: self.now)
        self.engines: list[Any] = [HeldEngine() for _ in range(engines)]
        for engine in self.engines:
            self.objects.add_engine(engine, spare=spare and engine is self.engines[-1])
        self._routers = 0

    def place(self, deaths: int = 0, count: int = 1) -> list[int]:
        """Places rooms with so many deaths, one transport each; returns the index of each one's engine."""
        chosen = []
        for _ in range(count):
            self._routers += 1
            router = f"{deaths} deaths, {self._routers}"
            ref = media.RouterRef(router, 0, router, "i", 1, deaths)
            self.objects.request(media.CreateTransport(ref, f"transport {self._routers}"), lambda _: None)
            (at,) = (index for index, engine in enumerate(self.engines) if router in engine.routers)
            chosen.append(at)
        return chosen

    def close(self, router: str) -> None:
        self.objects.order(media.Close(router, 1, "router"))

    def others(self, index: int) -> dict[str, int]:
        engine: Engine = self.engines[index]
        return self.objects.other_suspects(engine)


def test_suspects_are_spread_evenly_over_the_engines() -> None:
    node = Node(3)
    assert Counter(node.place(deaths=1, count=300)) == {0: 100, 1: 100, 2: 100}


def test_suspect_goes_where_the_fewest_are_as_suspect_whatever_the_load() -> None:
    node = Node(2)
    assert node.place(deaths=2) == [0]
    node.place(count=5)
    assert node.engines[1].routers == [f"0 deaths, {n}" for n in range(2, 7)]
    assert node.place(deaths=2) == [1], "more objects, and no suspect"


def test_less_suspect_rooms_do_not_keep_a_suspect_away() -> None:
    node = Node(2)
    assert node.place(deaths=1, count=4) == [0, 1, 0, 1]
    node.close("1 deaths, 1")
    node.close("1 deaths, 3")
    assert node.place(deaths=2) == [0]
    assert node.place(deaths=2) == [1], "two suspects, and none with two deaths"


def test_equally_suspect_engines_are_chosen_by_load() -> None:
    node = Node(2)
    assert node.place() == [0]
    assert node.place(deaths=1) == [1]


def test_room_without_deaths_stays_away_from_suspects() -> None:
    node = Node(2)
    assert node.place(deaths=1) == [0]
    assert set(node.place(count=20)) == {1}


def test_room_without_deaths_goes_to_the_less_loaded_of_suspect_engines() -> None:
    node = Node(2)
    assert node.place() == [0]
    assert node.place(deaths=1, count=3) == [1, 0, 1]
    assert node.place(count=4) == [0, 1, 0, 1], "one suspect or two make no difference"


def test_suspects_are_forgotten_after_a_while() -> None:
    node = Node(2)
    assert node.place(deaths=3) == [0]
    node.now = SUSPECT_SECONDS - 0.1
    assert node.objects.suspects == 1
    assert set(node.place(count=4)) == {1}
    node.now = SUSPECT_SECONDS
    assert node.objects.suspects == 0
    assert node.place(count=3) == [0, 0, 0]
    assert node.others(0) == {"0 deaths, 6": 3, "0 deaths, 7": 3, "0 deaths, 8": 3, "3 deaths, 1": 3}


def test_closed_suspect_is_forgotten_at_once() -> None:
    node = Node(2)
    assert node.place(deaths=1) == [0]
    node.close("1 deaths, 1")
    assert node.objects.suspects == 0
    assert node.place() == [0]


def test_each_room_of_a_dead_engine_is_told_how_many_are_as_suspect() -> None:
    node = Node(1)
    node.place(deaths=0, count=2)
    node.place(deaths=1, count=3)
    node.place(deaths=4)
    assert node.others(0) == {
        "0 deaths, 1": 5,
        "0 deaths, 2": 5,
        "1 deaths, 3": 3,
        "1 deaths, 4": 3,
        "1 deaths, 5": 3,
        "4 deaths, 6": 0,
    }


def test_suspects_of_a_dead_engine_are_forgotten_with_it() -> None:
    node = Node(2)
    node.place(deaths=1, count=2)
    node.objects.remove_engine(node.engines[0], "died")
    assert node.objects.suspects == 1
    fresh: Any = HeldEngine()
    node.engines[0] = fresh
    node.objects.add_engine(fresh)
    assert node.place(deaths=1) == [0]


def test_room_without_deaths_uses_the_spare_only_to_avoid_suspects() -> None:
    node = Node(2, spare=True)
    assert node.place(count=3) == [0, 0, 0], "the spare has fewer objects"
    assert node.place(deaths=1) == [1], "a suspect uses it like any other"
    assert node.place() == [0]
    assert node.place(deaths=1) == [0]
    assert node.place() == [0], "both have a suspect"
    node.now = SUSPECT_SECONDS
    node.close("1 deaths, 4")
    node.place(deaths=1)
    node.now += 1
    assert node.engines[1].routers[-1] == "1 deaths, 8"


@pytest.mark.parametrize("told", [0, 5])
def test_room_is_placed_by_what_its_first_request_says(told: int) -> None:
    node = Node(1)
    node.place(deaths=told)
    ref = media.RouterRef(f"{told} deaths, 1", 0, "room", "i", 1)
    node.objects.request(media.CreateTransport(ref, "second"), lambda _: None)
    assert node.objects.suspects == (1 if told else 0)
