"""Runs the engine processes of a media node; each is started again when it ends."""

import asyncio
from collections.abc import Callable
from typing import Final

from medianode.engines.port import Engine, EngineFactory, EngineFailed
from shared.aio.backoff import Backoff
from shared.protocol.media import AnyEvent
from shared.telemetry import log

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 10.0
STABLE_AFTER_SECONDS: Final = 60.0
"""An engine that ran for so many seconds did not end because of how it was started: pauses begin short again."""


class EnginePool:
    """Runs the engines 0 to `size` - 1, each with a media port of its own.

    `on_started` is called with each engine that takes requests, `on_ended` with each that ended by itself and the
    reason; both on the event loop.
    """

    def __init__(
        self,
        make: EngineFactory,
        size: int,
        *,
        on_event: Callable[[AnyEvent], None],
        on_started: Callable[[Engine], None],
        on_ended: Callable[[Engine, str], None],
    ) -> None:
        self._make = make
        self._size = size
        self._on_event = on_event
        self._on_started = on_started
        self._on_ended = on_ended
        self._log = log.get("pool")
        self._engines: dict[int, Engine] = {}
        self.deaths = 0
        """Number of engines that ended by themselves."""

    @property
    def engines(self) -> dict[int, Engine]:
        """The engines that run, by index."""
        return dict(self._engines)

    async def start(self) -> list[asyncio.Future[str]]:
        """Starts all engines. Raises `EngineFailed` if one does not start.

        Returns for each engine what `supervise` waits for: the reason of its end.
        """
        try:
            return [await self._start(index) for index in range(self._size)]
        except EngineFailed:
            await self.close()
            raise

    async def supervise(self, index: int, death: "asyncio.Future[str]") -> None:
        """Starts the engine again whenever it ends, with growing pauses; runs until it is cancelled."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            started = loop.time()
            reason = await death
            if loop.time() - started > STABLE_AFTER_SECONDS:
                backoff.reset()
            pause = backoff.next()
            self._log.error("engine.died", engine=index, error=reason, seconds=pause)
            death = await self._restart(index, pause, backoff)

    async def _restart(self, index: int, pause: float, backoff: Backoff) -> "asyncio.Future[str]":
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._start(index)
            except EngineFailed as error:
                pause = backoff.next()
                self._log.error("engine.start_failed", engine=index, error=str(error), seconds=pause)

    async def _start(self, index: int) -> "asyncio.Future[str]":
        engine = self._make(index)
        death: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def died(reason: str) -> None:
            self.deaths += 1
            if self._engines.pop(index, None) is engine:
                self._on_ended(engine, reason)
            if not death.done():
                death.set_result(reason)

        await engine.start(self._on_event, died)
        if not death.done():
            self._engines[index] = engine
            self._on_started(engine)
        return death

    async def close(self) -> None:
        """Ends all engines without calling `on_ended`."""
        engines = list(self._engines.values())
        self._engines.clear()
        await asyncio.gather(*(engine.close() for engine in engines))
