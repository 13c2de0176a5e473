"""Decodes what other processes wrote into the cluster's keys, and names the key of what is not valid.

A process with a defect, of a later version, or a person can write anything there. No reader may fail because of it: a
process whose entry has no valid `beat` is treated as one that is not listed, and any other invalid field as missing.
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
                valid[name.decode()], error = _decode(role, value)
            except (ValueError, msgspec.ValidationError) as invalid:
                error = f"skipped: {invalid}"
            if error:
                errors[name.decode(errors="backslashreplace")] = error
        self._log_new(role, errors)
        return valid

    def _log_new(self, role: Role, errors: Mapping[str, str]) -> None:
        for name in errors.keys() - self._invalid[role]:
            logger.error("registry.entry_invalid", redis_key=members_key(role), field=name, error=errors[name])
        self._invalid[role] = set(errors)


def _decode(role: Role, value: bytes) -> tuple[dict[str, Any], str]:
    """Returns the entry without its invalid fields, and which these are.

    Raises ValueError or `msgspec.ValidationError` if the entry is no object with a valid `beat`.
    """
    info: dict[str, Any] = orjson.loads(value)
    kind = _ENTRIES[role]
    try:
        msgspec.convert(info, kind)
    except msgspec.ValidationError as invalid:
        msgspec.convert(info, _Entry)
        for field in msgspec.structs.fields(kind):
            _remove_if_invalid(info, field.name, field.type)
        return info, f"field ignored: {invalid}"
    return info, ""


def _remove_if_invalid(info: dict[str, Any], name: str, expected: Any) -> None:
    try:
        if name in info:
            msgspec.convert(info[name], expected)
    except msgspec.ValidationError:
        del info[name]


def decode_partitions(value: bytes | str | int) -> int:
    """Returns the cluster's number of partitions. Raises `InvalidEntry`."""
    try:
        partitions = int(value)
    except ValueError:
        partitions = 0
    if partitions < 1:
        raise InvalidEntry(f"{PARTITIONS_KEY} in Redis is {value!r}, which is no number of partitions")
    return partitions
