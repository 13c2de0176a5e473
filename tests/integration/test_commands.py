"""The `plenary` command on real servers: what it says to people."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import PATIENCE, ROOT, Cluster

pytestmark = pytest.mark.servers


def plenary(*arguments: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    command = [sys.executable, "-m", "plenary", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(redis_url, amqp_url, tmp_path, partitions=4)
    try:
        yield cluster
    finally:
        print(cluster.said())
        cluster.stop()


def test_who_was_killed_is_shown_as_not_beating(cluster: Cluster, redis_url: str) -> None:
    cluster.roomworker("worker1")
    cluster.roomworker("worker2")
    cluster.roles["worker1"].kill()
    code, said = plenary("status", "--redis-url", redis_url)
    assert code == 0
    assert "Room workers (1)" in said
    lines = {name: line for line in said.splitlines() for name in ("worker1-", "worker2-") if name in line}
    assert "not beating" in lines["worker1-"]
    assert "not beating" not in lines["worker2-"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(["--queue-type", "quorum"], "queue_type"), (["--partitions", "5"], "this cluster has 4 partitions")],
    ids=["queue-type", "partitions"],
)
def test_a_process_of_another_cluster_says_so_and_ends(
    cluster: Cluster, redis_url: str, amqp_url: str, options: list[str], sentence: str
) -> None:
    cluster.roomworker("worker1")
    ours = ["--redis-url", redis_url, "--amqp-url", amqp_url, "--partitions", "4"]
    code, said = plenary("roomworker", *ours, *options)
    assert code == 1
    assert sentence in said
    assert "plenary: " in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_named(cluster: Cluster, redis_url: str, amqp_url: str) -> None:
    taken = cluster.gateway("gateway1").url.rpartition(":")[2]
    ours = ["--redis-url", redis_url, "--amqp-url", amqp_url, "--partitions", "4", "--host", "127.0.0.1"]
    code, said = plenary("gateway", *ours, "--port", taken)
    assert code == 1
    assert "plenary: cannot listen: " in said
    assert taken in said
    assert "Traceback" not in said
