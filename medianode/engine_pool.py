"""Runs the engine processes of a media node; each is started again when it ends."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from medianode.engines.port import Engine, EngineFactory, EngineFailed
from shared.aio.backoff import Backoff
from shared.protocol.media import AnyEvent
from shared.telemetry import log

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 10.0
STABLE_AFTER_SECONDS: Final = 60.0
"""An engine that ran for so many seconds, or had a room on it, did not end because of how it was started: pauses
begin short again. Engines that are back sooner find the guilty room sooner."""
SPARE_SECONDS: Final = 60.0
"""Seconds that the spare engine runs after it was last wanted, at least."""
SPARE_CHECK_SECONDS: Final = 1.0


class Death(NamedTuple):
    """The end of an engine. `in_use`: a room was on it."""

    reason: str
    in_use: bool


class EnginePool:
    """Runs the engines 0 to `size` - 1, each with a media port of its own; and engine `size`, the spare, when wanted.

    `on_started` is called with each engine that takes requests, `on_ended` with each that ended by itself, and with
    the spare when it is ended, and the reason; both on the event loop. `in_use` says whether a room is on an engine;
    it is called before `on_ended`.
    """

    def __init__(
        self,
        make: EngineFactory,
        size: int,
        *,
        on_event: Callable[[AnyEvent], None],
        on_started: Callable[[Engine], None],
        on_ended: Callable[[Engine, str], None],
        in_use: Callable[[Engine], bool] = lambda _: False,
    ) -> None:
        self._make = make
        self._size = size
        self._on_event = on_event
        self._on_started = on_started
        self._on_ended = on_ended
        self._in_use = in_use
        self._log = log.get("pool")
        self._engines: dict[int, Engine] = {}
        self._spare_wanted = asyncio.Event()
        self._spare_wanted_until = 0.0
        self.deaths = 0
        """Number of engines that ended by themselves."""

    @property
    def engines(self) -> dict[int, Engine]:
        """The engines that run, by index."""
        return dict(self._engines)

    @property
    def wanted(self) -> int:
        """The number of engines that should run."""
        return self._size + self._spare_wanted.is_set()

    @property
    def spare(self) -> Engine | None:
        """The spare engine, if it runs."""
        return self._engines.get(self._size)

    async def start(self) -> list[asyncio.Future[Death]]:
        """Starts all engines but the spare. Raises `EngineFailed` if one does not start.

        Returns for each engine what `supervise` waits for: its end.
        """
        try:
            return [await self._start(index) for index in range(self._size)]
        except EngineFailed:
            await self.close()
            raise

    async def supervise(self, index: int, death: "asyncio.Future[Death]") -> None:
        """Starts the engine again whenever it ends, with growing pauses; runs until it is cancelled."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        while True:
            started = loop.time()
            reason, in_use = await death
            if in_use or loop.time() - started > STABLE_AFTER_SECONDS:
                backoff.reset()
            pause = backoff.next()
            self._log.error("engine.died", engine=index, error=reason, seconds=pause)
            death = await self._restart(index, pause, backoff)

    async def _restart(self, index: int, pause: float, backoff: Backoff) -> "asyncio.Future[Death]":
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._start(index)
            except EngineFailed as error:
                pause = backoff.next()
                self._log.error("engine.start_failed", engine=index, error=str(error), seconds=pause)

    async def _start(self, index: int) -> "asyncio.Future[Death]":
        engine = self._make(index)
        death: asyncio.Future[Death] = asyncio.get_running_loop().create_future()

        def died(reason: str) -> None:
            self.deaths += 1
            in_use = self._in_use(engine)
            if self._engines.get(index) is engine:
                del self._engines[index]
                self._on_ended(engine, reason)
            if not death.done():
                death.set_result(Death(reason, in_use))

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

    # --- the spare engine -------------------------------------------------------------------------------------

    def want_spare(self) -> None:
        """Has the spare engine run for `SPARE_SECONDS`, and as long after as rooms are on it.

        Without effect if there are several engines anyway: rooms can be kept apart without it.
        """
        if self._size == 1:
            self._spare_wanted_until = asyncio.get_running_loop().time() + SPARE_SECONDS
            self._spare_wanted.set()

    async def supervise_spare(self) -> None:
        """Runs the spare engine while it is wanted; runs until it is cancelled."""
        while True:
            await self._spare_wanted.wait()
            self._log.info("engine.spare_started", engine=self._size)
            keeper = asyncio.create_task(self._run_spare())
            try:
                while self._spare_is_needed():
                    await asyncio.wait({keeper}, timeout=SPARE_CHECK_SECONDS)
                    if keeper.done():
                        keeper.result()  # a defect, raised here
                await self._end_spare(keeper)
            finally:
                keeper.cancel()

    async def _run_spare(self) -> None:
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        await self.supervise(self._size, await self._restart(self._size, 0.0, backoff))

    def _spare_is_needed(self) -> bool:
        if asyncio.get_running_loop().time() < self._spare_wanted_until:
            return True
        return self.spare is not None and self._in_use(self.spare)

    async def _end_spare(self, keeper: "asyncio.Task[None]") -> None:
        """Takes the engine out of the pool at once, so that no room is placed on it while it ends."""
        self._spare_wanted.clear()
        engine = self._engines.pop(self._size, None)
        keeper.cancel()
        if engine is not None:
            self._on_ended(engine, "no room is on the spare engine")
            await engine.close()
        await asyncio.wait({keeper})
        self._log.info("engine.spare_ended", engine=self._size)
