"""The cluster of processes that tests and demos start says when its partitions are where they will stay."""

import json
from pathlib import Path

import fakeredis
import pytest

from devtools.cluster import Cluster, Role
from roomworker.partitions.assignment import ranks

WORKERS = ("worker1-aa", "worker2-bb")


class LivingRole(Role):
    """A role without a process."""

    def __init__(self) -> None:
        pass

    @property
    def alive(self) -> bool:
        return True


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    cluster = Cluster("redis://unused", "amqp://unused", tmp_path, partitions=1)
    cluster.redis = fakeredis.FakeRedis()
    cluster.roles = {worker.rpartition("-")[0]: LivingRole() for worker in WORKERS}
    return cluster


def beat(cluster: Cluster, *serving: str) -> None:
    for worker in WORKERS:
        cluster.redis.hset("plenary:workers", worker, json.dumps({"active": [0] if worker in serving else []}))


def test_partitions_are_balanced_once_their_primary_workers_serve_them(cluster: Cluster) -> None:
    ((primary, standby),) = ranks(1, WORKERS)
    assert not cluster.balanced
    beat(cluster)
    assert not cluster.balanced
    beat(cluster, standby)  # it will hand the partition over
    assert not cluster.balanced
    beat(cluster, primary, standby)
    assert not cluster.balanced
    beat(cluster, primary)
    assert cluster.balanced
