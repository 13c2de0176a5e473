"""Defines and checks the limits of a room, from the cluster's settings or the room's creation."""

from dataclasses import dataclass, field, replace
from typing import Final

from msgspec import Raw

from shared.errors import TooLarge, TooMany, Unavailable
from shared.protocol import actions, client


@dataclass(slots=True)
class Growth:
    """Says whether rooms may grow. All rooms of a worker share one, which the worker sets."""

    refused: bool = False

    def check(self) -> None:
        """Raises `Unavailable` while rooms must not grow."""
        if self.refused:
            raise Unavailable("the server's memory is nearly used up: try again later")


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one room. `max_incoming_bitrate` is per sending transport, bits per second; 0 means no limit.

    `peer_bytes` and `room_bytes` limit what `roomworker.core.budget` counts, the three after
    them what `roomworker.core.fan_out` counts; 0 of these means no limit.
    """

    peers: int = 500
    transports_per_peer: int = 16
    producers_per_peer: int = 32
    app_data_bytes: int = 16 * 1024
    message_bytes: int = 64 * 1024
    max_incoming_bitrate: int = 0
    peer_bytes: int = 2 * 1024 * 1024
    room_bytes: int = 128 * 1024 * 1024
    peer_fan_out: int = 4 * 1024 * 1024
    room_fan_out: int = 32 * 1024 * 1024
    room_stream_bytes: int = 64 * 1024 * 1024
    growth: Growth = field(default_factory=Growth, compare=False)

    def overridden_by(self, own: actions.RoomLimits) -> "Limits":
        """Returns these limits, with the room's own ones in their place."""
        chosen = {
            name: value
            for name in ("peers", "transports_per_peer", "producers_per_peer", "max_incoming_bitrate")
            if (value := getattr(own, name)) is not None
        }
        return replace(self, **chosen) if chosen else self

    def check_app_data(self, app_data: client.AppData) -> None:
        """Raises `TooLarge` for appData beyond the limit."""
        if isinstance(app_data, Raw) and len(app_data) > self.app_data_bytes:
            raise TooLarge(f"appData: larger than {self.app_data_bytes} bytes")


DEFAULTS: Final = Limits()


def check_count(count: int, most: int, what: str) -> None:
    """Raises `TooMany` if one more would be more than `most`."""
    if count >= most:
        raise TooMany(f"{what}: at most {most}")
