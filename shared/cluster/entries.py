"""Decodes what other processes wrote into the cluster's keys, and names the key of what is not valid.

A process with a defect, or a person, can write anything there. No reader may fail because of it: a process whose
entry is not valid is treated as one that is not listed.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from shared.cluster.redis_keys import PARTITIONS_KEY, Role, members_key
from shared.telemetry import log

logger = log.get("registry")


class InvalidEntry(Exception):
    """A key of the cluster holds what no process of Plenary writes; the text names the key."""


class _Entry(msgspec.Struct):
    """The fields of an entry that other processes read. All others are passed on as they are."""

    beat: int


class _GatewayEntry(_Entry):
    connections: int = 0
    draining: bool = False


class _WorkerEntry(_Entry):
    subscribed: list[int] = []
    active: list[int] = []
    rooms: int = 0
    unreadable: int = 0
    unreadable_rooms: dict[str, str] = {}


class _NodeEntry(_Entry):
    load: float = 0.0
    engine: str = ""
    announced_ip: str = ""
    routers: int = 0
    transports: int = 0


_ENTRIES: Final[dict[Role, type[_Entry]]] = {
    "gateways": _GatewayEntry,
    "workers": _WorkerEntry,
    "nodes": _NodeEntry,
}


class EntryReader:
    """Decodes the registry's entries; logs each that is not valid once, when it is first seen."""

    def __init__(self) -> None:
        self._invalid: dict[Role, set[str]] = {role: set() for role in _ENTRIES}

    def decode(self, role: Role, entries: Mapping[bytes, bytes]) -> dict[str, dict[str, Any]]:
        """Returns the valid entries of a role's processes by process id."""
        valid: dict[str, dict[str, Any]] = {}
        errors: dict[str, str] = {}
        for name, value in entries.items():
            try:
                valid[name.decode()] = _decode(role, value)
            except (ValueError, msgspec.ValidationError) as error:
                errors[name.decode(errors="backslashreplace")] = str(error)
        self._log_new(role, errors)
        return valid

    def _log_new(self, role: Role, errors: Mapping[str, str]) -> None:
        for name in errors.keys() - self._invalid[role]:
            logger.error("registry.entry_invalid", redis_key=members_key(role), field=name, error=errors[name])
        self._invalid[role] = set(errors)


def _decode(role: Role, value: bytes) -> dict[str, Any]:
    """Raises ValueError or `msgspec.ValidationError`."""
    info: dict[str, Any] = orjson.loads(value)
    msgspec.convert(info, _ENTRIES[role])
    return info


def decode_partitions(value: bytes | str | int) -> int:
    """Returns the cluster's number of partitions. Raises `InvalidEntry`."""
    try:
        partitions = int(value)
    except ValueError:
        partitions = 0
    if partitions < 1:
        raise InvalidEntry(f"{PARTITIONS_KEY} in Redis is {value!r}, which is no number of partitions")
    return partitions
