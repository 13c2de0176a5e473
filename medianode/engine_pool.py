"""The node's engine processes: one per slot, started again when one dies."""

import asyncio
from collections.abc import Callable

from medianode.engines.port import Engine, EngineFactory, EngineFailed
from shared.aio.backoff import Backoff
from shared.protocol.media import AnyEvent
from shared.telemetry import log

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
# An engine that lived this long did not die of how it was started.
LIVED_LONG = 60.0


class Pool:
    """`up` and `down` are told of each engine that takes requests and that died, on the event loop."""

    def __init__(
        self,
        make: EngineFactory,
        slots: int,
        *,
        on_event: Callable[[AnyEvent], None],
        up: Callable[[Engine], None],
        down: Callable[[Engine, str], None],
    ) -> None:
        self._make = make
        self._slots = slots
        self._on_event = on_event
        self._up = up
        self._down = down
        self._log = log.get("pool")
        self._engines: dict[int, Engine] = {}
        self.deaths = 0
        """Engines that ended by themselves."""

    @property
    def engines(self) -> dict[int, Engine]:
        """Those that run, by slot."""
        return dict(self._engines)

    async def start(self) -> list[asyncio.Future[str]]:
        """Starts all; returns what `keep` waits on for each. Raises `EngineFailed` if one does not start."""
        try:
            return [await self._start(slot) for slot in range(self._slots)]
        except EngineFailed:
            await self.close()
            raise

    async def keep(self, slot: int, death: "asyncio.Future[str]") -> None:
        """Keeps the slot's engine alive for ever, with growing pauses between tries."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            started = loop.time()
            reason = await death
            if loop.time() - started > LIVED_LONG:
                backoff.reset()
            pause = backoff.next()
            self._log.error("engine died", slot=slot, reason=reason, pause=pause)
            death = await self._restart(slot, pause, backoff)

    async def _restart(self, slot: int, pause: float, backoff: Backoff) -> "asyncio.Future[str]":
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._start(slot)
            except EngineFailed as error:
                pause = backoff.next()
                self._log.error("engine does not start", slot=slot, reason=str(error), pause=pause)

    async def _start(self, slot: int) -> "asyncio.Future[str]":
        engine = self._make(slot)
        death: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def died(reason: str) -> None:
            self.deaths += 1
            if self._engines.pop(slot, None) is engine:
                self._down(engine, reason)
            if not death.done():
                death.set_result(reason)

        await engine.start(self._on_event, died)
        if not death.done():
            self._engines[slot] = engine
            self._up(engine)
        return death

    async def close(self) -> None:
        """Ends all engines, without calling `down`."""
        engines = list(self._engines.values())
        self._engines.clear()
        await asyncio.gather(*(engine.close() for engine in engines))
