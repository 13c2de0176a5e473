"""The messages between the coordinator and a generator process: the plan, and the report of each second."""

from typing import Any

import msgspec

from loadtest.generator.profiles import Profile


class Plan(msgspec.Struct, frozen=True):
    """`began` is the machine's monotonic clock, seconds; `churn` is peers per second that leave and come again."""

    urls: list[str]
    rooms: list[str]
    peers: int
    profile: Profile
    began: float
    ramp: float
    duration: float
    churn: float
    seed: str


class Tick(msgspec.Struct, frozen=True):
    """A report of what happened since the last one. `second` counts from the start."""

    second: int
    phase: str
    connected: int
    joined: int
    in_flight: int
    measured: dict[str, Any]
    done: bool = False
