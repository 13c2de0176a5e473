"""Assigns partitions to workers: every worker computes the same from the list of workers alone."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

STANDBYS: Final = 3
"""The number of workers that subscribe to a partition: the primary and those that would follow it at once."""


def ranks(partitions: int, workers: Sequence[str]) -> list[list[str]]:
    """Returns the `STANDBYS` workers of each partition, the primary first.

    They are ranked by rendezvous scores, so that few partitions move when a worker joins or leaves. No worker is
    primary of more than ⌈partitions / workers⌉ partitions, or of fewer than ⌊partitions / workers⌋.
    """
    if not workers:
        return [[] for _ in range(partitions)]
    share, one_more = divmod(partitions, len(workers))
    primary_of: dict[str, int] = dict.fromkeys(workers, 0)
    ranked: list[list[str]] = []
    for partition in range(partitions):
        order = sorted(workers, key=lambda worker: _score(partition, worker), reverse=True)
        limit = share + (one_more > 0)
        primary = next(worker for worker in order if primary_of[worker] < limit)
        one_more -= primary_of[primary] == share
        primary_of[primary] += 1
        ranked.append([primary, *(worker for worker in order if worker != primary)][:STANDBYS])
    return ranked


def _score(partition: int, worker: str) -> bytes:
    return blake2b(f"{partition}/{worker}".encode(), digest_size=8).digest()
