"""Keeps one connection to RabbitMQ open, and opens it again after a loss."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from shared.broker import BrokerError, BrokerStats, BrokerUnavailable
from shared.broker.addresses import Address, in_turn
from shared.broker.amqp.connection import CALL_TIMEOUT, AmqpConnection, LoginRefused, open_connection
from shared.broker.amqp.outage import Outage
from shared.broker.amqp.topology import TopologyMismatch
from shared.broker.receivers import STABLE_AFTER, recovery_backoff
from shared.telemetry import log

ATTEMPT_TIMEOUT: Final = 3.0
"""Seconds that each of several servers has to answer; a single server has `CALL_TIMEOUT`."""
REFUSALS: Final = 3
"""Refused logins in a row after which `start` fails: a RabbitMQ that has just started may not know its users yet."""

_log = log.get("broker")


class RobustConnection:
    """Keeps one connection open from `start` to `close`.

    `addresses` are tried in turn, started at a random one. `prepare` is awaited with each new connection before
    others get it; `on_lost` is called when it is gone.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        name: str,
        outage: Outage,
        stats: BrokerStats,
        *,
        prepare: Callable[[AmqpConnection], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        self._addresses = addresses
        self._name = name
        self._outage = outage
        self._stats = stats
        self._prepare = prepare
        self._on_lost = on_lost
        self._connection: AmqpConnection | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    @property
    def is_up(self) -> bool:
        return self._up.is_set()

    @property
    def current(self) -> AmqpConnection | None:
        """The open connection, if there is one."""
        return self._connection

    async def start(self) -> None:
        """Returns when the connection is open; what fails is tried again.

        Raises `TopologyMismatch`, or `LoginRefused` when the login was refused `REFUSALS` times in a row.
        """
        self._first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        await self._first

    async def wait_opened(self) -> AmqpConnection:
        """Returns the connection as soon as there is one."""
        while self._connection is None:
            await self._up.wait()
        return self._connection

    def reconnect(self, reason: str) -> None:
        """Gives the present connection up for a new one."""
        if self._connection is not None:
            self._connection.abort(reason)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._outage.recovered(self)

    async def _run(self) -> None:
        backoff = recovery_backoff()
        clock = asyncio.get_running_loop().time
        refusals = 0
        while True:
            try:
                connection = await self._open()
            except TopologyMismatch as mismatch:
                _log.error("topology.mismatch", error=str(mismatch))
                self._started(mismatch)
                await backoff.wait()
                continue
            except LoginRefused as refused:
                refusals += 1
                self._outage.failed(self, str(refused))
                if refusals >= REFUSALS:
                    self._started(refused)
                await backoff.wait()
                continue
            except Exception as failure:  # noqa: BLE001 - whatever keeps RabbitMQ away, the only answer is to try again
                refusals = 0
                self._outage.failed(self, str(failure) or repr(failure))
                await backoff.wait()
                continue
            since = clock()
            reason = await self._use(connection)
            self._outage.failed(self, reason)
            if clock() - since > STABLE_AFTER:
                backoff.reset()
            await backoff.wait()

    def _started(self, failure: Exception | None) -> None:
        if self._first is None or self._first.done():
            return
        if failure is None:
            self._first.set_result(None)
        else:
            self._first.set_exception(failure)

    async def _open(self) -> AmqpConnection:
        connection = await self._connect()
        try:
            await self._prepare(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect(self) -> AmqpConnection:
        """Tries each server once. Raises `BrokerUnavailable` with what each said, `LoginRefused` if all refused."""
        within = ATTEMPT_TIMEOUT if len(self._addresses) > 1 else CALL_TIMEOUT
        failures: list[BrokerError] = []
        for address in in_turn(self._addresses):
            try:
                return await open_connection(address, self._name, within=within)
            except BrokerError as failure:
                failures.append(failure)
        refused = all(isinstance(failure, LoginRefused) for failure in failures)
        raise (LoginRefused if refused else BrokerUnavailable)("; ".join(map(str, failures)))

    async def _use(self, connection: AmqpConnection) -> str:
        """Gives the connection to its users until it ends; returns why it did."""
        self._connection = connection
        self._up.set()
        self._stats.connections += 1
        self._outage.recovered(self)
        self._started(None)
        try:
            failure = await asyncio.shield(connection.closed)
            self._stats.lost += 1
            return str(failure)
        finally:
            self._up.clear()
            self._connection = None
            self._on_lost()
            await connection.close()
