"""Counts the engines that died under a room, and decides when the room loses its media.

Nobody sees the packets that end an engine, so the room that they belong to is found by elimination: media nodes keep
rooms with many deaths apart (`medianode.placement`), until the guilty room is alone with its number of deaths. The
other rooms of the dead engine are placed anew and never refused.
"""

from datetime import UTC, datetime
from typing import Final

from roomworker.core.model import EngineDeaths
from shared.errors import Unavailable

REMEMBERED_MS: Final = 60_000
"""Milliseconds after which a death is no more counted, unless another one has followed."""
GUILTY_DEATHS: Final = 3
GUILTY_WITHIN_MS: Final = 60_000
GUILTY_ALONE: Final = 2
"""A room loses its media at the last of `GUILTY_DEATHS` deaths within `GUILTY_WITHIN_MS`, if at each of the last
`GUILTY_ALONE` no other room on the engine had as many. One alone may be due to a guilty room with fewer deaths."""
REFUSED_MS: Final = 300_000
"""Milliseconds that the room is then placed on no media node."""


def record(deaths: EngineDeaths | None, now: int, *, alone: bool) -> EngineDeaths:
    """Returns the room's deaths with one more at `now` (0: not known yet).

    `alone`: no other room on that engine had as many. A room that was refused lately is refused again at once, so
    that it does not end one engine after another anew.
    """
    if deaths is None or not count(deaths, now):
        return EngineDeaths(1, [now], int(alone))
    now = max(now, *deaths.times)
    times = [*(time or now for time in deaths.times), now][-GUILTY_DEATHS:]
    times_alone = deaths.alone + 1 if alone else 0
    recent = len(times) == GUILTY_DEATHS and now - times[0] <= GUILTY_WITHIN_MS
    guilty = times_alone >= GUILTY_ALONE and (recent or deaths.refused_until > 0)
    return EngineDeaths(deaths.number + 1, times, times_alone, now + REFUSED_MS if guilty else deaths.refused_until)


def count(deaths: EngineDeaths | None, now: int) -> int:
    """Returns how many engines have died under the room, each at most `REMEMBERED_MS` after the one before.

    The time in which the room had no media is left out. A death whose time is not known counts.
    """
    if deaths is None:
        return 0
    quiet_since = max(deaths.times[-1], deaths.refused_until)
    return 0 if quiet_since and now - quiet_since > REMEMBERED_MS else deaths.number


def check_media_allowed(deaths: EngineDeaths | None, now: int) -> None:
    """Raises `Unavailable` while the room has lost its media. The reason names the cause, and when it ends.

    A refusal that would last longer than any is of another clock, and over.
    """
    if deaths is not None and now < deaths.refused_until and not (now and deaths.refused_until - now > REFUSED_MS):
        until = datetime.fromtimestamp(deaths.refused_until / 1000, UTC).isoformat(timespec="seconds")
        raise Unavailable(
            f"room: its media is refused until {until}, because {deaths.number} media engines died under it"
        )
