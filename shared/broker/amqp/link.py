"""One connection to RabbitMQ that comes back by itself."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiormq import Connection
from aiormq.abc import AbstractBase, AbstractChannel
from yarl import URL

from shared.broker import BrokerStats, BrokerUnavailable
from shared.broker.amqp.intake import IncomingFactory, Intake
from shared.broker.amqp.topology import TopologyMismatch
from shared.broker.amqp.wire import Outlet
from shared.telemetry import log

HEARTBEAT = 2
"""Seconds; RabbitMQ gives a hung process up after about twice that (DELIVERY B4)."""

CALL_WITHIN = 10.0
"""Deadline of every remote call, seconds."""

CLOSE_WITHIN = 3.0

_SAY_AGAIN = 10.0
_SETTLED = 5.0

T = TypeVar("T")

_log = log.get("broker")
# What aiormq reports, with tracebacks, `Report` says in one line.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class Pause:
    """Growing pauses between attempts, scattered so that all processes do not come back at once."""

    def __init__(self, first: float = 0.1, longest: float = 2.0) -> None:
        self._first = self._next = first
        self._longest = longest

    async def wait(self) -> None:
        pause = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._longest, self._next * 2)
        await asyncio.sleep(pause)

    def reset(self) -> None:
        self._next = self._first


class Report:
    """Tells the log, once for all links of a process, that RabbitMQ is lost, still absent, back."""

    def __init__(self, url: str) -> None:
        self._address = str(URL(url).with_password(None).with_query(None))
        self._down: set[object] = set()
        self._said = 0.0

    def down(self, link: object, why: BaseException | None) -> None:
        first = not self._down
        self._down.add(link)
        now = asyncio.get_running_loop().time()
        if first or now - self._said >= _SAY_AGAIN:
            self._said = now
            _log.warning(
                "no connection to RabbitMQ, trying again",
                address=self._address,
                error="it no longer answers" if isinstance(why, asyncio.CancelledError) else str(why) or repr(why),
                hint="is it running and reachable? its address is set by PLENARY_AMQP_URL",
            )

    def up(self, link: object) -> None:
        if link in self._down:
            self._down.remove(link)
            if not self._down:
                _log.info("connected to RabbitMQ", address=self._address)


async def uncancelled(awaitable: Awaitable[T]) -> T:
    """Awaits a call of aiormq so that only a real cancellation looks like one, and always does.

    aiormq ends the pending calls of a dying connection with `CancelledError` (here: `BrokerUnavailable`), and the
    `wait_for` of Python 3.11 in it forgets a cancellation that comes together with the answer.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        result = await awaitable
    except asyncio.CancelledError:
        if task.cancelling() > before:
            raise
        raise BrokerUnavailable("the connection closed") from None
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result


class AmqpConnection(Connection):
    # Times (heartbeat + 1): a RabbitMQ that hangs is given up after 6 s instead of 9.
    HEARTBEAT_GRACE_MULTIPLIER = 2

    def __init__(self, url: URL) -> None:
        self._streams = IncomingFactory()
        super().__init__(url, transport_factory=self._streams)

    def listen(self, channel: AbstractChannel, intake: Intake) -> None:
        """Messages and confirms on this channel are the intake's, and not aiormq's."""
        self._streams.incoming.listen(channel.number, intake)


class Link:
    """Keeps one connection open from `start` to `close`.

    `prepare` is awaited with each new connection before others get it; `lost` is called when it is gone.
    """

    def __init__(
        self,
        url: str,
        name: str,
        report: Report,
        stats: BrokerStats,
        *,
        prepare: Callable[[AmqpConnection, Outlet], Awaitable[None]],
        lost: Callable[[], None],
    ) -> None:
        self._url = URL(url).update_query(heartbeat=str(HEARTBEAT), name=name)
        self._report = report
        self._stats = stats
        self._prepare = prepare
        self._lost = lost
        self._connection: AmqpConnection | None = None
        self._outlet: Outlet | None = None
        self._up = asyncio.Event()
        self._ended: asyncio.Future[BaseException | None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    async def start(self) -> None:
        """Returns when the link is up. Raises `TopologyMismatch`, nothing else: it keeps trying."""
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep())
        await self._first

    async def opened(self) -> tuple[AmqpConnection, Outlet]:
        """The connection, as soon as there is one."""
        while self._connection is None or self._outlet is None:
            await self._up.wait()
        return self._connection, self._outlet

    def drop(self, why: str) -> None:
        """Gives the present connection up for a new one."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(BrokerUnavailable(why))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep(self) -> None:
        pause = Pause()
        clock = asyncio.get_running_loop().time
        while True:
            try:
                connection, outlet = await self._open()
            except TopologyMismatch as mismatch:
                _log.error("RabbitMQ does not fit this process", error=str(mismatch))
                self._started(mismatch)
                await pause.wait()
                continue
            except Exception as error:  # noqa: BLE001 - whatever keeps it away, there is only trying again
                self._report.down(self, error)
                await pause.wait()
                continue
            since = clock()
            why = await self._use(connection, outlet)
            self._report.down(self, why)
            if clock() - since > _SETTLED:
                pause.reset()
            await pause.wait()

    def _started(self, failure: Exception | None) -> None:
        if self._first is None or self._first.done():
            return
        if failure is None:
            self._first.set_result(None)
        else:
            self._first.set_exception(failure)

    async def _open(self) -> tuple[AmqpConnection, Outlet]:
        connection = AmqpConnection(self._url)
        try:
            async with asyncio.timeout(CALL_WITHIN):
                await uncancelled(connection.connect())
                outlet = Outlet(connection)
                await uncancelled(self._prepare(connection, outlet))
        except BaseException:
            await close_quietly(connection)
            raise
        return connection, outlet

    async def _use(self, connection: AmqpConnection, outlet: Outlet) -> BaseException | None:
        """Until it ends, and why it did."""
        ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._ended = ended
        connection.closing.add_done_callback(lambda closing: _pass_on(closing, ended))
        self._connection, self._outlet = connection, outlet
        self._up.set()
        self._stats.connections += 1
        self._report.up(self)
        self._started(None)
        try:
            why = await ended
            self._stats.lost += 1
            return why
        finally:
            self._up.clear()
            self._connection = self._outlet = None
            self._lost()
            await close_quietly(connection)


def _pass_on(closing: "asyncio.Future[object]", ended: "asyncio.Future[BaseException | None]") -> None:
    if not ended.done():
        ended.set_result(None if closing.cancelled() else closing.exception())


async def close_quietly(resource: AbstractBase) -> None:
    """A connection or channel, whatever state it is in."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_WITHIN):
            await uncancelled(resource.close())
