"""All roles in one process, on memory."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.server import Gateway
from plenary.processes import all_in_one
from plenary.processes.event_loop import CannotStart
from shared.settings import RunSettings
from tests.support.waiting import PATIENCE


def settings(**more: Any) -> RunSettings:
    return RunSettings(host="127.0.0.1", port=0, page="none", engine="null", engines=1, **more)


async def test_run_starts_with_any_number_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    subscribed: list[list[int]] = []

    async def look(gateway: Gateway) -> None:
        workers = await gateway._cluster.members("workers")
        subscribed.extend(worker["subscribed"] for worker in workers.values())
        stop.set()

    def greet(_: RunSettings, gateway: Gateway, **__: object) -> None:
        tasks.append(asyncio.create_task(look(gateway)))

    monkeypatch.setattr(all_in_one, "_greet", greet)
    async with asyncio.timeout(PATIENCE):
        await all_in_one.run_all_roles(settings(partitions=64), stop)
    assert subscribed == [list(range(64))]


async def test_failing_role_stops_the_others_at_start(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    missing = str(tmp_path / "cert.pem")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(CannotStart, match=missing):
            await all_in_one.run_all_roles(settings(tls_cert=missing, tls_key=missing), asyncio.Event())
    assert asyncio.all_tasks() == before
