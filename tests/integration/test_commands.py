"""The `plenary` command on real servers: what it says to people."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.cluster import PATIENCE, ROOT, Cluster, Role
from devtools.probes import amqp_connection
from tests.support.waiting import until

pytestmark = pytest.mark.servers


def plenary(*arguments: str) -> tuple[int, str]:
    """Exit code and all that was said."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = Role.start("plenary", arguments, cwd=ROOT, log=log, env=os.environ)
        return process.wait(PATIENCE), log.read_text()


@pytest.fixture
def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(redis_url, amqp_url, tmp_path, partitions=4)
    try:
        yield cluster
    finally:
        print(cluster.said())
        cluster.stop()


def test_killed_process_is_shown_as_not_beating(cluster: Cluster, redis_url: str) -> None:
    cluster.roomworker("worker1")
    cluster.roomworker("worker2")
    cluster.roles["worker1"].kill()
    code, said = plenary("status", "--redis-url", redis_url)
    assert code == 0
    assert "Room workers (1)" in said
    lines = {name: line for line in said.splitlines() for name in ("worker1-", "worker2-") if name in line}
    assert "not beating" in lines["worker1-"]
    assert "not beating" not in lines["worker2-"]


async def test_status_shows_waiting_batches_and_messages_set_aside(
    cluster: Cluster, redis_url: str, amqp_url: str
) -> None:
    cluster.roomworker("worker1").kill()
    letter: Any = {
        "partition": 3,
        "reason": "its worker died 2 times",
        "item": '["input","salon","gw.1",1,7,"m",1,""]',
    }
    cluster.redis.xadd("plenary:dead", letter)
    connection = amqp_connection(amqp_url)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("rooms", "2", b"batch")
    finally:
        connection.close()

    said = ""

    def nothing_else_waits() -> bool:
        nonlocal said
        code, said = plenary("status", "--redis-url", redis_url, "--amqp-url", amqp_url)
        assert code == 0
        return "3 batches wait" in said

    await until(nothing_else_waits, "the last ticks of the killed worker have expired", in_thread=True)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    assert "Partitions (4): 3 batches wait" in said
    assert ["2", "3", "0", "0", "nobody"] in rows
    assert "Messages set aside (1)" in said
    assert any(row[1:4] == ["3", "input", "salon"] for row in rows)


def test_status_without_rabbitmq_shows_the_processes(cluster: Cluster, redis_url: str, amqp_url: str) -> None:
    cluster.roomworker("worker1")
    code, said = plenary("status", "--redis-url", redis_url, "--amqp-url", "amqp://me:secret@127.0.0.1:1/")
    assert code == 0
    assert "Room workers (1)" in said
    assert "RabbitMQ does not report the backlog" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(["--queue-type", "quorum"], "queue_type"), (["--partitions", "5"], "this cluster has 4 partitions")],
    ids=["queue-type", "partitions"],
)
def test_process_with_settings_of_another_cluster_exits_with_the_reason(
    cluster: Cluster, redis_url: str, amqp_url: str, options: list[str], sentence: str
) -> None:
    cluster.roomworker("worker1")
    ours = ["--redis-url", redis_url, "--amqp-url", amqp_url, "--partitions", "4"]
    code, said = plenary("roomworker", *ours, *options)
    assert code == 1
    assert sentence in said
    assert "plenary: " in said
    assert "Traceback" not in said


def test_gateway_on_a_taken_port_exits_and_names_the_port(cluster: Cluster, redis_url: str, amqp_url: str) -> None:
    taken = cluster.gateway("gateway1").url.rpartition(":")[2]
    ours = ["--redis-url", redis_url, "--amqp-url", amqp_url, "--partitions", "4", "--host", "127.0.0.1"]
    code, said = plenary("gateway", *ours, "--port", taken)
    assert code == 1
    assert "plenary: cannot listen: " in said
    assert taken in said
    assert "Traceback" not in said


@pytest.mark.parametrize("login", ["guest:wrong@", "nobody:guest@"])
def test_process_whose_login_rabbitmq_refuses_exits_with_the_reason(
    redis_url: str, amqp_url: str, login: str
) -> None:
    code, said = plenary(
        "roomworker", "--redis-url", redis_url, "--amqp-url", amqp_url.replace("guest:guest@", login)
    )
    assert code == 1
    assert "plenary: RabbitMQ refuses the login" in said
    assert "user or password is wrong" in said
    assert "PLENARY_AMQP_URL" in said
    assert "wrong@" not in said
    assert "Traceback" not in said


def test_process_with_a_missing_virtual_host_exits_with_the_reason(redis_url: str, amqp_url: str) -> None:
    for command in ("roomworker", "gateway"):
        code, said = plenary(command, "--redis-url", redis_url, "--amqp-url", f"{amqp_url}nowhere")
        assert code == 1
        assert "the virtual host does not exist" in said
        assert "add_vhost" in said
        assert "OpenOk" not in said
        assert "Traceback" not in said


def test_status_with_a_missing_virtual_host_says_so(cluster: Cluster, redis_url: str, amqp_url: str) -> None:
    cluster.roomworker("worker1")
    code, said = plenary("status", "--redis-url", redis_url, "--amqp-url", f"{amqp_url}nowhere")
    assert code == 0
    assert "the virtual host does not exist" in said
    assert "OpenOk" not in said


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("redis://user:wrong@{}/0", "Redis refuses the login"),
        ("redis://{}/999", "Redis has no database of the number"),
    ],
)
def test_process_that_redis_refuses_exits_with_the_reason(
    redis_url: str, amqp_url: str, address: str, reason: str
) -> None:
    url = address.format(redis_url.removeprefix("redis://").partition("/")[0])
    code, said = plenary("roomworker", "--redis-url", url, "--amqp-url", amqp_url)
    assert code == 1
    assert f"plenary: {reason}" in said
    assert "PLENARY_REDIS_URL" in said
    assert "wrong@" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("option", ["cafile", "certfile"])
def test_process_without_the_files_of_its_amqps_address_exits(redis_url: str, option: str, tmp_path: Path) -> None:
    url = f"amqps://127.0.0.1:1/?{option}={tmp_path}"
    code, said = plenary("roomworker", "--redis-url", redis_url, "--amqp-url", url)
    assert code == 1
    assert f"plenary: cannot read {tmp_path}: Is a directory (PLENARY_AMQP_URL)" in said
