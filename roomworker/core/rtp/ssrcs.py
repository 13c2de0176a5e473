"""Derives the SSRCs of producers and consumers from the producer's number in its room."""

from typing import Final, NamedTuple

MAX_ENCODINGS: Final = 16
SSRC_BLOCKS: Final = 2**26

_BASE: Final = 0x1000_0000
_BLOCK_SIZE: Final = 32


class Ssrcs(NamedTuple):
    """The SSRCs of a producer: `mapped` has one per encoding, within the engine; all receivers get `consumer`."""

    mapped: list[int]
    consumer: int
    rtx: int


def derive_ssrcs(number: int, encodings: int) -> Ssrcs:
    """Returns the SSRCs of the producer with this number in its room, and of all its consumers.

    SSRCs are derived rather than drawn, so that they need not be stored and a repeated command finds the same:
    producer n owns the 32 SSRCs from 0x10000000 + 32·n on, of which the first is its consumers', the second their
    rtx, and those from the third on its encodings'. Raises ValueError unless 0 ≤ number < `SSRC_BLOCKS` and
    0 ≤ encodings ≤ 16.
    """
    if not 0 <= number < SSRC_BLOCKS or not 0 <= encodings <= MAX_ENCODINGS:
        raise ValueError(f"no SSRCs for producer {number} with {encodings} encodings")
    first = _BASE + number * _BLOCK_SIZE
    return Ssrcs([first + 2 + i for i in range(encodings)], first, first + 1)
