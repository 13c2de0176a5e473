"""Puts processes under memory limits, each into a memory cgroup of its own (v2 or v1).

This needs a cgroup that this process may write to: root has one, others get one by `systemd-run --user --scope
-p Delegate=yes make hostile`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from devtools.cluster import ROOT, Process, from_scratch
from devtools.starting import Unavailable

_V1: Final = Path("/sys/fs/cgroup/memory")
_V2: Final = Path("/sys/fs/cgroup")
_UNITS: Final = {"k": 1024, "m": 1024**2, "g": 1024**3}


def compose_limits() -> dict[str, int]:
    """Returns the bytes that docker-compose.yml gives each service."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return {
        name: int(service["mem_limit"][:-1]) * _UNITS[service["mem_limit"][-1]]
        for name, service in services.items()
        if "mem_limit" in service
    }


def compose_maxmemory() -> int:
    """Returns the bytes that docker-compose.yml lets Redis have for data."""
    words = str(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"]).split()
    value = words[words.index("--maxmemory") + 1].removesuffix("b")
    return int(value[:-1]) * _UNITS[value[-1]]


class MemoryCgroups:
    """Makes a memory cgroup for each process. `parent` is a folder of the cgroup file system."""

    def __init__(self, parent: Path, *, v2: bool) -> None:
        self._parent = parent
        self._v2 = v2
        self._groups: dict[str, Path] = {}

    def limit(self, name: str, pid: int, limit: int) -> None:
        """Puts a process, and all that it will start, under a limit in bytes. Raises OSError."""
        group = self._parent / f"plenary-hostile-{os.getpid()}-{name}-{pid}"
        group.mkdir()
        self._groups[name] = group
        (group / ("memory.max" if self._v2 else "memory.limit_in_bytes")).write_text(str(limit))
        if self._v2:
            with suppress(OSError):
                (group / "memory.swap.max").write_text("0")
        (group / "cgroup.procs").write_text(str(pid))

    def oom_kills(self, name: str) -> int:
        """Returns how many processes of the group the kernel has killed for want of memory."""
        group = self._groups.get(name)
        if group is None:
            return 0
        text = (group / ("memory.events" if self._v2 else "memory.oom_control")).read_text()
        counts = dict(line.split() for line in text.splitlines())
        return int(counts.get("oom_kill", 0))

    def members(self, name: str) -> list[int]:
        """Returns the ids of the group's processes; none if they have ended, or have no limit."""
        try:
            return [int(pid) for pid in (self._groups[name] / "cgroup.procs").read_text().split()]
        except (KeyError, OSError):
            return []

    def resident(self, name: str) -> int:
        """Returns the bytes that the group's processes have in memory."""
        total = 0
        for pid in self.members(name):
            with suppress(psutil.NoSuchProcess):
                total += psutil.Process(pid).memory_info().rss
        return total

    def close(self) -> None:
        """Removes the groups. Their processes have ended."""
        for group in self._parent.glob(f"plenary-hostile-{os.getpid()}-*"):
            with suppress(OSError):
                group.rmdir()


@contextmanager
def memory_cgroups() -> Iterator[MemoryCgroups]:
    """Finds a memory cgroup to make others in. Raises `Unavailable` with the reason if there is none."""
    groups = _find()
    try:
        yield groups
    finally:
        groups.close()


def _find() -> MemoryCgroups:
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    tried = []
    if "memory" in own:
        for parent in (_V1 / own["memory"], _V1):
            if _is_usable(parent, "memory.limit_in_bytes"):
                return MemoryCgroups(parent, v2=False)
            tried.append(str(parent))
    elif (_V2 / "cgroup.controllers").exists():
        for parent in (_V2 / own.get("", ""), _V2):
            if _delegate(parent) and _is_usable(parent, "memory.max"):
                return MemoryCgroups(parent, v2=True)
            tried.append(str(parent))
    raise Unavailable(f"no memory cgroup that this process may write to: tried {', '.join(tried) or 'nothing'}")


def _is_usable(parent: Path, limit: str) -> bool:
    """Whether groups with a memory limit can be made there."""
    trial = parent / f"plenary-hostile-{os.getpid()}-trial"
    try:
        trial.mkdir()
        usable = (trial / limit).exists()
        trial.rmdir()
    except OSError:
        return False
    return usable


def _delegate(parent: Path) -> bool:
    """Lets groups inside have memory limits; processes of `parent` itself move into a group first, as v2 wants."""
    try:
        if "memory" in (parent / "cgroup.subtree_control").read_text().split():
            return True
        if parent != _V2:
            leaf = parent / f"plenary-hostile-{os.getpid()}-driver"
            leaf.mkdir(exist_ok=True)
            for pid in (parent / "cgroup.procs").read_text().split():
                (leaf / "cgroup.procs").write_text(pid)
        (parent / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        return False
    return True


class LimitedStart:
    """A `devtools.cluster.Start`: each role has the limit of its service in the compose file."""

    def __init__(self, groups: MemoryCgroups, limits: Mapping[str, int]) -> None:
        self._groups = groups
        self._limits = limits

    def __call__(
        self, program: str, arguments: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str]
    ) -> Process:
        process = from_scratch(program, arguments, cwd=cwd, log=log, env=env)
        name = arguments[arguments.index("--name") + 1]
        self._groups.limit(name, process.pid, self._limits[arguments[0]])
        return process
