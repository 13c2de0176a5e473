"""Deadlines of declaring, and what happens when the connection to declare over is lost."""

import asyncio
from typing import Any

import pytest

from shared.broker import BrokerUnavailable
from shared.broker.addresses import Address
from shared.broker.amqp import topology
from shared.broker.amqp.topology import Topology

ADDRESS = Address("127.0.0.1", 5672)


def connecting(monkeypatch: pytest.MonkeyPatch, outcome: "asyncio.Future[Any]") -> list[str]:
    """Lets every aio-pika connection end as `outcome` does; returns the names of the connections."""
    names: list[str] = []

    async def connect(_: Address, name: str) -> Any:
        names.append(name)
        return await asyncio.shield(outcome)

    monkeypatch.setattr(topology, "connect", connect)
    return names


async def test_declaring_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting(monkeypatch, asyncio.get_running_loop().create_future())
    monkeypatch.setattr(topology, "CALL_TIMEOUT", 0.01)
    monkeypatch.setattr(topology, "SECONDS_PER_PARTITION", 0.0)
    it = Topology(4, "classic", "test")

    with pytest.raises(BrokerUnavailable, match="not declared within"):
        await it.declare(ADDRESS)
    await it.close()


async def test_cancellation_from_the_library_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    lost.cancel()
    connecting(monkeypatch, lost)

    with pytest.raises(BrokerUnavailable, match="was lost"):
        await Topology(4, "classic", "test").declare(ADDRESS)


async def test_callers_at_the_same_time_share_one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    names = connecting(monkeypatch, outcome)
    it = Topology(4, "classic", "test")
    callers = [asyncio.create_task(it.declare(ADDRESS)) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.sleep(0)

    outcome.set_exception(OSError("refused"))
    failures = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(failure) for failure in failures] == [asyncio.CancelledError, BrokerUnavailable, BrokerUnavailable]
    assert names == ["test topology"]
