"""Redis and RabbitMQ for tests: given by address, in containers, or as private processes.

`redis()` and `rabbitmq()` choose, in this order: `PLENARY_TEST_REDIS_URL` / `PLENARY_TEST_AMQP_URL`, testcontainers
where a Docker engine answers and has or gets the image, the installed server binaries. They return a server that is
not started yet, or raise `Unavailable` with the reason. All but a server given by address can be killed, paused and
restarted on the same port with the same data.
"""

import functools
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pika
import redis as redis_client

START_WITHIN = 60.0
STOP_WITHIN = 20.0
LOOK_AGAIN = 0.05

REDIS_IMAGE = "redis:7.2-bookworm"
RABBITMQ_IMAGE = "rabbitmq:3-management"
REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction")
# Reached through a port of the host; the official image listens so by itself.
IN_A_CONTAINER = ("--bind", "*", "--protected-mode", "no")

_RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")


# It reports every attempt at a server that is still starting, in seven lines.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class Unavailable(Exception):
    """There is no such server on this machine; the text says what was looked for."""


class Server(Protocol):
    url: str
    killable: bool

    def start(self) -> None:
        """Returns once the server answers."""
        ...

    def stop(self) -> None:
        """Ends it in good order and removes what it left."""
        ...

    def kill(self) -> None:
        """SIGKILL. Its data stays for `restart`."""
        ...

    def restart(self) -> None:
        """Starts it again after `kill`, or kills and starts it."""
        ...

    def pause(self) -> None:
        """SIGSTOP: its connections stay open and nothing answers."""
        ...

    def resume(self) -> None: ...

    def ctl(self, *args: str) -> str:
        """`rabbitmqctl --quiet <args>`, its output. Only RabbitMQ."""
        ...


def free_port() -> int:
    """A port below those that outgoing connections take: nobody has it by the time the server listens."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def redis_answers(url: str) -> bool:
    try:
        with redis_client.Redis.from_url(url, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis_client.RedisError, OSError):
        return False


def rabbitmq_answers(url: str) -> bool:
    try:
        amqp_connection(url).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def empty_redis(url: str) -> None:
    with redis_client.Redis.from_url(url, socket_timeout=5) as client:
        client.flushdb()


def empty_rabbitmq(url: str, partitions: int = 64) -> None:
    """Removes the partitions' queues of an earlier test, whatever their type was."""
    connection = amqp_connection(url)
    try:
        channel = connection.channel()
        for partition in range(partitions):
            channel.queue_delete(f"rooms.{partition}")
    finally:
        connection.close()


def amqp_connection(url: str) -> Any:
    """A blocking connection, for what tests do beside the code under test."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
    return pika.BlockingConnection(parameters)


def _wait_until(answers: Callable[[], bool], ended: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + START_WITHIN
    while not answers():
        if (why := ended()) is not None:
            raise Unavailable(why)
        if time.monotonic() > deadline:
            raise Unavailable(f"no answer within {START_WITHIN:.0f} s")
        time.sleep(LOOK_AGAIN)


class Given:
    """A server given by its address: used as it is, never started, stopped or killed."""

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


class Container:
    """A server in a container, always on the same host port."""

    killable = True

    def __init__(
        self, image: str, port: int, url: str, answers: Callable[[str], bool], command: Sequence[str] = ()
    ) -> None:
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        from testcontainers.core.container import DockerContainer

        host_port = free_port()
        self._container = DockerContainer(image).with_bind_ports(port, host_port)
        if command:
            self._container = self._container.with_command(list(command))
        self._template = url
        self._port = host_port
        self._answers = answers
        self.url = ""

    def start(self) -> None:
        self._container.start()
        self.url = self._template.format(host=self._container.get_container_host_ip(), port=self._port)
        self._wait()

    def stop(self) -> None:
        self._container.stop()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        self._container.get_wrapped_container().restart(timeout=0)
        self._wait()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    def ctl(self, *args: str) -> str:
        code, output = self._container.exec(["rabbitmqctl", "--quiet", *args])
        if code:
            raise RuntimeError(output.decode())
        return str(output.decode())

    def _wait(self) -> None:
        _wait_until(lambda: self._answers(self.url), lambda: None)


class Process:
    """A private server process with its own ports and folder."""

    killable = True

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"plenary-{name}-"))
        self.port = free_port()
        self.url = ""
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _answering(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        self._process = self._spawn(self._command())
        _wait_until(self._answering, self._ended)

    def stop(self) -> None:
        self._end(self._process, signal.SIGTERM)
        self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        self._end(self._process, signal.SIGKILL)
        self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def ctl(self, *args: str) -> str:
        raise Unavailable(f"{self._name} has no rabbitmqctl")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self._name} does not run"
        os.kill(self._process.pid, number)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _ended(self) -> str | None:
        if self._process is not None and self._process.poll() is None:
            return None
        return f"{self._name} ended:\n{(self.folder / 'output').read_text(errors='replace')[-2000:]}"

    @staticmethod
    def _end(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_WITHIN)


class RedisProcess(Process):
    def __init__(self) -> None:
        super().__init__("redis")
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        return ["redis-server", *where, *REDIS_OPTIONS]

    def _answering(self) -> bool:
        return redis_answers(self.url)


class RabbitmqProcess(Process):
    """A broker apart from any system-wide one: its own node name, ports, cookie and epmd."""

    def __init__(self) -> None:
        super().__init__("rabbitmq")
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._node = f"plenary-{self.port}@localhost"
        self._epmd_port = free_port()
        self._dist_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        # The wrappers in /usr/sbin insist on user rabbitmq when run as root; the scripts beneath do not.
        return [str(_RABBITMQ_BIN / "rabbitmq-server")]

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            **os.environ,
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            # Makes the script become the server instead of a parent of it, so that a signal reaches it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def start(self) -> None:
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("disk_free_limit.absolute = 1MB\n")
        if self._epmd is None:
            self._epmd = self._spawn(["epmd", "-address", "127.0.0.1", "-port", str(self._epmd_port)])
        super().start()

    def stop(self) -> None:
        self._end(self._process, signal.SIGTERM)
        self._end(self._epmd, signal.SIGTERM)
        self._process = self._epmd = None
        super().stop()

    def ctl(self, *args: str) -> str:
        done = subprocess.run(
            [str(_RABBITMQ_BIN / "rabbitmqctl"), "--quiet", *args],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=STOP_WITHIN,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr or done.stdout)
        return done.stdout

    def _answering(self) -> bool:
        return rabbitmq_answers(self.url)


@functools.cache
def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=3, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@functools.cache
def docker_has(image: str) -> bool:
    """Whether a Docker engine answers and has the image, or can pull it: not every engine reaches a registry."""
    if not docker_answers():
        return False

    def docker(*args: str, within: float) -> bool:
        try:
            return subprocess.run(["docker", *args], capture_output=True, timeout=within, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    return docker("image", "inspect", image, within=10) or docker("pull", "--quiet", image, within=300)


def redis() -> Server:
    if url := os.environ.get("PLENARY_TEST_REDIS_URL"):
        return Given(url)
    if docker_has(REDIS_IMAGE):
        url = "redis://{host}:{port}/0"
        return Container(REDIS_IMAGE, 6379, url, redis_answers, ("redis-server", *IN_A_CONTAINER, *REDIS_OPTIONS))
    if shutil.which("redis-server") is None:
        raise Unavailable("no PLENARY_TEST_REDIS_URL, no Docker engine with the image, no redis-server installed")
    return RedisProcess()


def rabbitmq() -> Server:
    if url := os.environ.get("PLENARY_TEST_AMQP_URL"):
        return Given(url)
    if docker_has(RABBITMQ_IMAGE):
        return Container(RABBITMQ_IMAGE, 5672, "amqp://guest:guest@{host}:{port}/", rabbitmq_answers)
    if not (_RABBITMQ_BIN / "rabbitmq-server").exists() or shutil.which("epmd") is None:
        raise Unavailable("no PLENARY_TEST_AMQP_URL, no Docker engine with the image, no rabbitmq-server installed")
    return RabbitmqProcess()
