"""AMQP frames as pamqp reads them."""

from typing import Any

from pamqp import frame


def decoded(data: bytes) -> list[tuple[int, Any]]:
    """Channel and frame of each."""
    frames = []
    while data:
        size, channel, value = frame.unmarshal(data)
        frames.append((channel, value))
        data = data[size:]
    return frames
