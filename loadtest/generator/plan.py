"""The messages between the coordinator and a generator process: the plan, and the report of each second."""

from typing import Any

import msgspec

from loadtest.generator.profiles import Profile


class Plan(msgspec.Struct, frozen=True):
    """The task of one generator.

    `began` is the machine's monotonic clock in seconds; `churn` is the number of peers per second that leave and join
    again.
    """

    urls: list[str]
    rooms: list[str]
    peers: int
    profile: Profile
    began: float
    ramp: float
    duration: float
    churn: float
    seed: str


class SecondReport(msgspec.Struct, frozen=True):
    """A generator's report of the time since the previous one. `second` counts from the start."""

    second: int
    phase: str
    connected: int
    joined: int
    in_flight: int
    measured: dict[str, Any]
    done: bool = False
