"""The cluster of docker-compose.yml, under a project name and on ports of its own."""

import json
import os
import re
import secrets
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal, TypeAlias

import redis

from devtools.cluster import ROOT
from devtools.containers import docker_has
from devtools.starting import failure, on_free_ports, random_port
from tests.fault.cluster import API_KEY
from tests.support.waiting import until

Service: TypeAlias = Literal["haproxy", "gateway", "roomworker", "medianode", "rabbitmq", "redis"]

IMAGE: Final = "plenary:compose-test"
BASES: Final = tuple(
    re.findall(r"^FROM (debian:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    + re.findall(
        r"^ +image: ((?:haproxy|rabbitmq|redis):\S+)", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE
    )
)
"""The images that the cluster is made of, as the files pin them."""
ENGINES: Final = 2
"""As test.env says."""
SETTLED_WITHIN = 120.0
BUILD_WITHIN, WITHIN = 3600.0, 300.0
"""Seconds for a command; the engine may have to be compiled."""


def missing_requirement() -> str:
    """Says what this machine lacks to run containers; empty if nothing."""
    if not _compose():
        return "neither docker-compose nor `docker compose` is here"
    lacking = [image for image in BASES if not docker_has(image)]
    return f"no Docker engine that has or gets {', '.join(lacking)}" if lacking else ""


def _compose() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") is None:
        return []
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return [] if plugin.returncode else ["docker", "compose"]


def docker(*arguments: str) -> str:
    """Runs `docker …` and returns its output. Raises AssertionError if it failed."""
    return _run(["docker", *arguments])


def build() -> None:
    """Builds the image as docker-compose.yml says."""
    _run(_command("build", "gateway"), _environment(), BUILD_WITHIN)


@dataclass(frozen=True)
class Ended:
    """A container that ended by itself or was told to."""

    service: str
    container: str
    code: int


class Stack:
    """A cluster of containers; its ports are known once `scale` has been called for the first time."""

    def __init__(self, folder: Path) -> None:
        self._started = False
        self._endings = folder / "ended"

    def _watch_exits(self) -> None:
        # Events are recorded as they happen: the engine keeps few, and every health check is one.
        with self._endings.open("wb") as endings:
            about = ["--filter", "event=die", "--filter", f"label=com.docker.compose.project={self.project}"]
            self._watch = subprocess.Popen(["docker", "events", "--format", "{{json .}}", *about], stdout=endings)

    # What `tests.fault` asks of a cluster.

    @property
    def gateways(self) -> list[SimpleNamespace]:
        """HAProxy, the only gateway that clients and callers of the API see."""
        role = SimpleNamespace(api_url=f"http://127.0.0.1:{self.api_port}")
        return [SimpleNamespace(url=f"ws://127.0.0.1:{self.port}", role=role)]

    @property
    def nodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self.members("nodes")]

    def registered(self, node: SimpleNamespace) -> dict[str, Any] | None:
        return self.members("nodes").get(node.name)

    @property
    def rabbitmq_server(self) -> SimpleNamespace:
        return SimpleNamespace(ctl=lambda *arguments: self.inside("rabbitmq", "rabbitmqctl", "--quiet", *arguments))

    # Its life.

    def compose(self, *arguments: str) -> str:
        return _run(_command(*arguments), self._environment)

    def scale(self, *, gateways: int, workers: int) -> None:
        """Starts what is not there yet and stops what is too many; returns when the latter has ended."""
        numbers = ["--scale", f"gateway={gateways}", "--scale", f"roomworker={workers}"]
        if self._started:
            self._up(*numbers)
        else:
            on_free_ports(lambda: self._start(*numbers))
            self._started = True

    def _start(self, *numbers: str) -> None:
        self.project = f"plenary-test-{secrets.token_hex(4)}"
        self._choose_ports()
        self._watch_exits()
        try:
            self._up(*numbers)
        except AssertionError as failed:
            self._remove()
            raise failure(str(failed)) from failed

    def _up(self, *numbers: str) -> None:
        self.compose("up", "--detach", "--no-build", *numbers)

    def _choose_ports(self) -> None:
        self.port, self.api_port, redis_port, media = (random_port() for _ in range(4))
        self._environment = _environment() | {
            "COMPOSE_PROJECT_NAME": self.project,
            "PLENARY_HTTP_PORT": str(self.port),
            "PLENARY_HTTPS_PORT": str(random_port()),
            "PLENARY_API_PORT": str(self.api_port),
            "PLENARY_API_KEY": API_KEY,
            "PLENARY_MEDIA_PORT": str(media),
            "PLENARY_MEDIA_PORTS": f"{media}-{media + ENGINES - 1}",
            "TEST_REDIS_PORT": str(redis_port),
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis = redis.Redis(port=redis_port, socket_timeout=5)

    def down(self) -> None:
        if self._started:
            self._remove()

    def _remove(self) -> None:
        self.redis.close()
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        self._watch.terminate()
        self._watch.wait()

    def inside(self, service: Service, *command: str) -> str:
        return self.compose("exec", "-T", service, *command)

    def logs(self, last: int = 200) -> str:
        return self.compose("logs", "--no-color", f"--tail={last}")

    # The state of the cluster.

    def containers(self, service: Service) -> list[dict[str, Any]]:
        """Returns what `docker inspect` reports of the service's running containers."""
        ids = self.compose("ps", "--quiet", service).split()
        return [it for it in json.loads(docker("inspect", *ids)) if it["State"]["Running"]] if ids else []

    def unhealthy(self) -> list[str]:
        services: list[Service] = ["haproxy", "gateway", "roomworker", "medianode", "rabbitmq", "redis"]
        found = {service: self.containers(service) for service in services}
        return [
            *(service for service, containers in found.items() if not containers),
            *(
                f"{it['Name']}: {it['State']['Health']['Status']}"
                for containers in found.values()
                for it in containers
                if it["State"]["Health"]["Status"] != "healthy"
            ),
        ]

    def ended(self) -> list[Ended]:
        """Returns the containers that ended since the cluster was made."""
        about = [json.loads(line)["Actor"]["Attributes"] for line in self._endings.read_text().splitlines()]
        return [Ended(it["com.docker.compose.service"], it["name"], int(it["exitCode"])) for it in about]

    def get(self, path: str) -> tuple[int, bytes]:
        """Returns the status and body of a GET through HAProxy; (0, reason) if there is no answer."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()
        except OSError as failure:
            return 0, str(failure).encode()

    def members(self, role: Literal["gateways", "workers", "nodes"]) -> dict[str, dict[str, Any]]:
        """Returns the registry's entry of each process of this role."""
        entries: dict[bytes, bytes] = self.redis.hgetall(f"plenary:{role}")  # type: ignore[assignment]
        return {name.decode(): json.loads(info) for name, info in entries.items()}


async def until_settled(what: str, condition: Callable[[], object]) -> None:
    """Waits for what containers bring about, and prints `what` when it has come."""
    await until(condition, what, within=SETTLED_WITHIN, in_thread=True)
    print(what, flush=True)


def _command(*arguments: str) -> list[str]:
    files = ["-f", "docker-compose.yml", "-f", "tests/compose/published.yml"]
    return [*_compose(), "--env-file", "tests/compose/test.env", *files, *arguments]


def _environment() -> dict[str, str]:
    """Returns this process's environment without the cluster's settings, which are in test.env."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PLENARY_", "RABBITMQ_"))}


def _run(command: list[str], environment: dict[str, str] | None = None, within: float = WITHIN) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=within,
        check=False,
    )
    said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{said}"
    return done.stdout
