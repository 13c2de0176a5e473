"""All roles in one process, on memory."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from plenary.processes import all_in_one
from plenary.processes.event_loop import CannotStart
from shared.settings import RunSettings
from tests.support.waiting import PATIENCE


def settings(**more: Any) -> RunSettings:
    return RunSettings(host="127.0.0.1", port=0, page="none", engine="null", engines=1, **more)


async def test_run_starts_with_any_number_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()
    monkeypatch.setattr(all_in_one, "_greet", lambda *_, **__: stop.set())
    async with asyncio.timeout(PATIENCE):
        await all_in_one.run_all_roles(settings(partitions=64), stop)


async def test_failing_role_stops_the_others_at_start(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    missing = str(tmp_path / "cert.pem")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(CannotStart, match=missing):
            await all_in_one.run_all_roles(settings(tls_cert=missing, tls_key=missing), asyncio.Event())
    assert asyncio.all_tasks() == before
