"""Provides Redis and RabbitMQ for tests and benchmarks: by address, in containers, or as private processes.

`redis()` and `rabbitmq()` choose, in this order: `PLENARY_TEST_REDIS_URL` / `PLENARY_TEST_AMQP_URL`, testcontainers
where a Docker engine answers and has or gets the image, the installed server binaries. They return a server that is
not started yet, or raise `Unavailable` with the reason. All but a server given by address can be killed, paused and
restarted on the same port with the same data.
"""

import os
import shutil
from typing import Final, Protocol

from devtools.containers import Container, docker_has
from devtools.probes import rabbitmq_answers, redis_answers
from devtools.server_processes import RABBITMQ_BIN, REDIS_OPTIONS, RabbitmqProcess, RedisProcess
from devtools.starting import Unavailable

GIVEN_BY: Final = ("PLENARY_TEST_REDIS_URL", "PLENARY_TEST_AMQP_URL")
"""Environment variables with the addresses of servers that run already."""
REDIS_IMAGE: Final = "redis:7.2-bookworm"
RABBITMQ_IMAGE: Final = "rabbitmq:3-management"
# Redis must accept connections from the host; the official image does so by itself.
_IN_A_CONTAINER: Final = ("--bind", "*", "--protected-mode", "no")


class Server(Protocol):
    url: str
    """The server's address, known when the server has started."""
    killable: bool

    def start(self) -> None:
        """Returns once the server answers. Raises `StartFailed`."""
        ...

    def stop(self) -> None:
        """Ends the server in good order and removes its files."""
        ...

    def kill(self) -> None:
        """Kills the server by SIGKILL. Its data stays for `restart`."""
        ...

    def restart(self) -> None:
        """Starts the server again after `kill`, or kills and starts it."""
        ...

    def pause(self) -> None:
        """Stops the server by SIGSTOP: connections stay open and nothing answers."""
        ...

    def resume(self) -> None: ...

    def ctl(self, *args: str) -> str:
        """Runs `rabbitmqctl --quiet <args>` and returns its output; only for RabbitMQ."""
        ...


class ExternalServer:
    """A server given by its address. It is used as it is, and never started, stopped or killed."""

    killable = False

    def __init__(self, url: str) -> None:
        self.url = url

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None:
        raise Unavailable("a server given by its address is not killed")

    restart = pause = resume = kill

    def ctl(self, *args: str) -> str:
        raise Unavailable("no rabbitmqctl for a server given by its address")


def redis() -> Server:
    if url := os.environ.get(GIVEN_BY[0]):
        return ExternalServer(url)
    if docker_has(REDIS_IMAGE):
        url = "redis://{host}:{port}/0"
        return Container(REDIS_IMAGE, 6379, url, redis_answers, ("redis-server", *_IN_A_CONTAINER, *REDIS_OPTIONS))
    if shutil.which("redis-server") is None:
        raise Unavailable("no PLENARY_TEST_REDIS_URL, no Docker engine with the image, no redis-server installed")
    return RedisProcess()


def rabbitmq() -> Server:
    if url := os.environ.get(GIVEN_BY[1]):
        return ExternalServer(url)
    if docker_has(RABBITMQ_IMAGE):
        return Container(RABBITMQ_IMAGE, 5672, "amqp://guest:guest@{host}:{port}/", rabbitmq_answers)
    if not (RABBITMQ_BIN / "rabbitmq-server").exists() or shutil.which("epmd") is None:
        raise Unavailable("no PLENARY_TEST_AMQP_URL, no Docker engine with the image, no rabbitmq-server installed")
    return RabbitmqProcess()
