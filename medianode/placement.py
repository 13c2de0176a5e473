"""Chooses the engine of each router, so that a room whose packets end engines is found.

Nobody sees which packets ended an engine, but each room says how many engines have died under it (`RouterRef`). Rooms
with deaths are *suspects* for a while. They are spread over the engines by their number of deaths, so that each death
adds to the number of about half of the most suspect rooms, until the guilty room is the only one with its number.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from medianode.engines.port import Engine
from shared.protocol.media import EngineId, RouterRef

SUSPECT_SECONDS: Final = 60.0
"""Seconds from its placement in which a room with deaths is a suspect. Room workers forget deaths as fast
(`roomworker.core.engine_deaths`)."""


@dataclass
class ObjectCounts:
    """The numbers of objects on one engine or on all."""

    routers: int = 0
    transports: int = 0
    producers: int = 0
    consumers: int = 0
    paused: int = 0
    """Producers and consumers that are paused."""

    @property
    def load(self) -> int:
        """The number that engines and nodes are compared by."""
        return self.transports + self.producers + self.consumers


class _EngineSuspects:
    """The suspects on one engine: their deaths and when they cease to be suspects, in the order of placement."""

    def __init__(self, spare: bool) -> None:
        self.spare = spare
        self._routers: dict[EngineId, tuple[int, float]] = {}
        self._numbers: Counter[int] = Counter()
        """The number of suspects by their number of deaths."""

    def add(self, router: RouterRef, until: float) -> None:
        self._routers[router.id] = router.engine_deaths, until
        self._numbers[router.engine_deaths] += 1

    def remove(self, router: EngineId) -> None:
        if known := self._routers.pop(router, None):
            self._numbers[known[0]] -= 1

    def expire(self, now: float) -> None:
        while self._routers and (first := next(iter(self._routers.items())))[1][1] <= now:
            self.remove(first[0])

    def deaths(self, router: EngineId) -> int:
        return self._routers.get(router, (0, 0.0))[0]

    def count(self, at_least: int) -> int:
        return sum(count for deaths, count in self._numbers.items() if deaths >= at_least)


class Placement:
    """Knows the suspects on each engine. `clock` is monotonic, seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._engines: dict[Engine, _EngineSuspects] = {}

    def engine_started(self, engine: Engine, *, spare: bool) -> None:
        """Notes an engine. A `spare` one runs only to separate suspects: others are placed there if they must."""
        self._engines[engine] = _EngineSuspects(spare)

    def engine_ended(self, engine: Engine) -> None:
        """Forgets the engine and its suspects."""
        self._engines.pop(engine, None)

    def router_placed(self, engine: Engine, router: RouterRef) -> None:
        """Notes a router on this engine."""
        if router.engine_deaths > 0:
            self._engines[engine].add(router, self._clock() + SUSPECT_SECONDS)

    def router_removed(self, engine: Engine, router: EngineId) -> None:
        """Forgets a router of this engine."""
        if suspects := self._engines.get(engine):
            suspects.remove(router)

    def choose(self, loads: Mapping[Engine, ObjectCounts], router: RouterRef) -> Engine:
        """Returns the engine for the router, one of `loads`.

        A suspect is placed where the fewest rooms are with at least as many deaths, any other room where no suspect
        is, if there is such an engine. Among equals, the engine with the fewest objects is chosen.
        """
        self._expire()

        def order(engine: Engine) -> tuple[int, bool, int, int]:
            suspects, load = self._engines[engine], loads[engine]
            if router.engine_deaths > 0:
                return suspects.count(router.engine_deaths), False, load.load, load.routers
            return int(suspects.count(1) > 0), suspects.spare, load.load, load.routers

        return min(loads, key=order)

    def other_suspects(self, engine: Engine, routers: Iterable[EngineId]) -> dict[EngineId, int]:
        """Returns for each of the engine's `routers` how many of the others have at least as many deaths."""
        self._expire()
        suspects = self._engines[engine]
        deaths = {router: suspects.deaths(router) for router in routers}
        numbers = Counter(deaths.values())
        as_many = {own: sum(count for other, count in numbers.items() if other >= own) for own in numbers}
        return {router: as_many[own] - 1 for router, own in deaths.items()}

    @property
    def suspects(self) -> int:
        """The number of suspects on all engines."""
        self._expire()
        return sum(suspects.count(1) for suspects in self._engines.values())

    def _expire(self) -> None:
        now = self._clock()
        for suspects in self._engines.values():
            suspects.expire(now)
