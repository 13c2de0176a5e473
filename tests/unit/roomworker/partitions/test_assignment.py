"""The assignment of partitions to room workers."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from roomworker.partitions.assignment import STANDBYS, ranks

WORKERS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)


@given(partitions=st.integers(1, 64), workers=WORKERS)
def test_shares_of_workers_differ_by_at_most_one_partition(partitions: int, workers: list[str]) -> None:
    primaries = Counter(dict.fromkeys(workers, 0))
    primaries.update(ranked[0] for ranked in ranks(partitions, workers))

    assert max(primaries.values()) - min(primaries.values()) <= 1


@given(partitions=st.integers(1, 64), workers=WORKERS)
def test_every_partition_has_its_standbys_each_once(partitions: int, workers: list[str]) -> None:
    for ranked in ranks(partitions, workers):
        assert len(ranked) == len(set(ranked)) == min(STANDBYS, len(workers))


@given(workers=WORKERS)
def test_order_of_the_workers_does_not_matter(workers: list[str]) -> None:
    assert ranks(16, sorted(workers)) == ranks(16, sorted(workers, reverse=True))


def test_a_worker_that_joins_moves_few_partitions_besides_its_own() -> None:
    workers = [f"worker{i}" for i in range(5)]
    before, after = ranks(32, workers), ranks(32, [*workers, "new"])

    moved = sum(one[0] != other[0] for one, other in zip(before, after, strict=True))
    assert moved <= 16


def test_partitions_have_no_ranks_without_workers() -> None:
    assert ranks(3, []) == [[], [], []]
