"""Measures CPU time and memory of processes."""

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any, Final

import psutil

LOAD_GENERATOR: Final = "load generator"
OTHERS: Final = "others"
"""The name under which the CPU of all other processes of the machine is reported."""
CALM_SECONDS: Final = 0.5
CALM_CORES: Final = 0.25
"""Cores below which the machine counts as idle; the idle systems use fewer."""


class CpuSeconds(dict[str, float]):
    """The CPU seconds of each process since its start, user and system; `LOAD_GENERATOR` is this process."""

    def __sub__(self, before: Mapping[str, float]) -> "CpuSeconds":
        return CpuSeconds({name: value - before[name] for name, value in self.items()})

    @property
    def server(self) -> float:
        return sum(seconds for name, seconds in self.items() if name not in (LOAD_GENERATOR, OTHERS))


def cpu_seconds(processes: Mapping[str, psutil.Process]) -> CpuSeconds:
    everyone = {**processes, LOAD_GENERATOR: psutil.Process(os.getpid())}
    used = CpuSeconds({name: sum(process.cpu_times()[:2]) for name, process in everyone.items()})
    machine = psutil.cpu_times()
    busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0) - getattr(machine, "guest", 0)
    used[OTHERS] = busy - sum(used.values())
    return used


async def wait_until_idle(patience: float) -> None:
    """Returns when this machine is almost idle, after `patience` seconds at the latest."""
    deadline = time.monotonic() + patience
    psutil.cpu_percent()
    while time.monotonic() < deadline:
        await asyncio.sleep(CALM_SECONDS)
        if psutil.cpu_percent() * (psutil.cpu_count() or 1) < 100 * CALM_CORES:
            return


def listening(port: int) -> psutil.Process:
    """Returns the process that listens on a port of this machine."""
    for connection in psutil.net_connections("tcp"):
        address: Any = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address.port == port and connection.pid:
            return psutil.Process(connection.pid)
    raise LookupError(f"no process of this machine listens on {port}")


def memory_bytes(process: psutil.Process) -> int:
    """Returns the memory that would be free if the process ended: its own pages, without shared libraries (USS)."""
    found: Any = process.memory_full_info()
    return int(found.uss)
