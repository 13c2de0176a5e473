"""deploy/haproxy/haproxy.cfg in a real HAProxy, before stand-ins for gateways."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.support.waiting import until

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = ROOT / "deploy/haproxy/haproxy.cfg"
TIMEOUT_SECONDS: Final = 60.0
BACKLOG: Final = 100
"""The backlog with which asyncio and uvloop listen by default."""
UPGRADE: Final = (
    b"GET /?roomId=salon&peerId=alice HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="no HAProxy: apt-get install haproxy"),
]


def listening() -> socket.socket:
    """A socket that listens on a port which the kernel chose; HAProxy and gateways inherit it."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(4096)
    return made


class Gateway:
    def __init__(self, busy_seconds: float) -> None:
        with listening() as made:
            self.address = made.getsockname()
            numbers = [str(made.fileno()), str(busy_seconds), str(BACKLOG)]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.slow_gateway", *numbers],
                cwd=ROOT,
                pass_fds=[made.fileno()],
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self.process.stdout
        assert self.process.stdout.readline() == "listening\n"

    def vanish(self) -> list[socket.socket]:
        """The gateway answers nothing any more, as a machine that lost its power: connections to it stay unanswered.

        Returns the sockets that fill its backlog.
        """
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        fillers = [socket.socket() for _ in range(2 * BACKLOG)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(self.address)
        return fillers

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


class Haproxy:
    """HAProxy with the deployed file; only addresses are replaced by those of the test."""

    def __init__(
        self, folder: Path, gateways: list[Gateway], api_key: str, replaced: dict[str, str], more: dict[str, str]
    ) -> None:
        self._log = folder / "haproxy.log"
        names = (":8080", ":8081", ":8404")
        with ExitStack() as stack:
            sockets = {name: stack.enter_context(listening()) for name in names}
            self.port, self.api_port, own_port = (made.getsockname()[1] for made in sockets.values())
            self._metrics_url = f"http://127.0.0.1:{own_port}/metrics"
            text = CONFIG.read_text()
            for old, new in replaced.items():
                assert old in text
                text = text.replace(old, new)
            for name, made in sockets.items():
                text = text.replace(f"bind {name}\n", f"bind fd@{made.fileno()}\n")
            servers = [
                f"    server gateway{i} {host}:{port}" for i, (host, port) in enumerate(g.address for g in gateways)
            ]
            text = re.sub(r"^    server-template gateway 1-64 gateway:8080 .*$", "\n".join(servers), text, flags=re.M)
            config = folder / "haproxy.cfg"
            config.write_text(text)
            environment = {"PATH": os.environ["PATH"], "TLS_PEM": "", "PLENARY_API_KEY": api_key} | more
            with self._log.open("wb") as log:
                self.process = subprocess.Popen(
                    _deployed_command(config),
                    stdout=log,
                    stderr=log,
                    env=environment,
                    pass_fds=[made.fileno() for made in sockets.values()],
                )

    def log(self) -> str:
        return self._log.read_text()

    def metric(self, name: str, proxy: str) -> float | None:
        """Returns the sum of a metric's samples of that backend; None if there is no such backend."""
        with urllib.request.urlopen(self._metrics_url, timeout=5) as answer:
            text = answer.read().decode()
        found = re.findall(rf'^haproxy_{name}{{[^}}]*proxy="{proxy}"[^}}]*}} (\S+)$', text, re.M)
        return sum(map(float, found)) if found else None

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def _deployed_command(config: Path) -> list[str]:
    """Returns the command of docker-compose.yml, with another configuration file."""
    command: list[str] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["haproxy"]["command"]
    return [part.replace("$$", "$").replace("/usr/local/etc/haproxy/haproxy.cfg", str(config)) for part in command]


async def connect(port: int) -> tuple[str, asyncio.StreamWriter]:
    """One client's HTTP status, and its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE)
    line = await asyncio.wait_for(reader.readline(), TIMEOUT_SECONDS)
    return line.split()[1].decode() if line else "connection closed", writer


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Haproxy, list[Gateway]]]]:
    with ExitStack() as stack:

        def start(
            gateways: int,
            *,
            busy_seconds: float = 0.0,
            api_key: str = "",
            replaced: dict[str, str] | None = None,
            **environment: str,
        ) -> tuple[Haproxy, list[Gateway]]:
            made = [Gateway(busy_seconds) for _ in range(gateways)]
            for gateway in made:
                stack.callback(gateway.stop)
            proxy = Haproxy(tmp_path, made, api_key, replaced or {}, environment)
            stack.callback(proxy.stop)
            stack.callback(lambda: print(proxy.log()))
            return proxy, made

        yield start


async def test_healthy_gateways_stay_up_when_800_clients_come_at_once(
    start: Callable[..., tuple[Haproxy, list[Gateway]]],
) -> None:
    proxy, _ = start(2, busy_seconds=0.005)
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 2, in_thread=True)
    clients = await asyncio.gather(*(connect(proxy.port) for _ in range(800)))
    for _, writer in clients:
        writer.close()
    assert Counter(status for status, _ in clients) == {"101": 800}
    assert " is DOWN" not in proxy.log()


async def test_clients_of_a_vanished_gateway_are_led_to_another_within_two_seconds(
    start: Callable[..., tuple[Haproxy, list[Gateway]]],
) -> None:
    proxy, gateways = start(2)
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 2, in_thread=True)
    fillers = gateways[0].vanish()
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while proxy.metric("backend_active_servers", "gateways") == 2 or len(waits) < 4:
            began = loop.time()
            status, writer = await connect(proxy.port)
            writer.close()
            assert status == "101"
            waits.append(loop.time() - began)
    for filler in fillers:
        filler.close()
    assert max(waits) < 2.0


async def test_without_an_api_key_there_is_no_api_backend_to_alert_about(
    start: Callable[..., tuple[Haproxy, list[Gateway]]],
) -> None:
    proxy, _ = start(1)
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 1, in_thread=True)
    assert proxy.metric("backend_active_servers", "gateways-api") is None
    assert "gateways-api" not in proxy.log()


@pytest.mark.parametrize("api_key", ["secret", """a,b)"c'(d\\"""], ids=["plain", "punctuation"])
async def test_api_requests_reach_the_api_backend_if_there_is_a_key(
    start: Callable[..., tuple[Haproxy, list[Gateway]]], api_key: str
) -> None:
    """Given no server in it: the stand-ins have no API, and its real servers are found by DNS."""
    proxy, _ = start(1, api_key=api_key)
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 1, in_thread=True)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{proxy.api_port}/v1/rooms", timeout=10)
    assert proxy.metric("backend_active_servers", "gateways-api") == 0
    assert proxy.metric("backend_http_responses_total", "gateways-api") == 1


async def answer(port: int, request: bytes) -> bytes:
    """All that comes back to a request until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        data = await reader.read()
    writer.close()
    return data


GET: Final = b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


async def test_connections_of_one_source_beyond_the_limit_are_429(
    start: Callable[..., tuple[Haproxy, list[Gateway]]],
) -> None:
    proxy, _ = start(1, PLENARY_CONNECTIONS_PER_IP="5")
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 1, in_thread=True)
    clients = [await connect(proxy.port) for _ in range(8)]
    assert [status for status, _ in clients] == ["101"] * 5 + ["429"] * 3
    for _, writer in clients:
        writer.close()


async def test_new_connections_of_one_source_beyond_the_rate_are_429(
    start: Callable[..., tuple[Haproxy, list[Gateway]]],
) -> None:
    proxy, _ = start(1, PLENARY_CONNECTION_RATE_PER_IP="1")
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 1, in_thread=True)
    statuses = []
    for _ in range(20):
        status, writer = await connect(proxy.port)
        statuses.append(status)
        writer.close()
    assert statuses[:9] == ["101"] * 9
    assert statuses[-1] == "429"


async def test_limits_of_zero_let_any_number_of_connections_in(
    start: Callable[..., tuple[Haproxy, list[Gateway]]],
) -> None:
    proxy, _ = start(1, PLENARY_CONNECTIONS_PER_IP="0", PLENARY_CONNECTION_RATE_PER_IP="0")
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 1, in_thread=True)
    assert [(await connect(proxy.port))[0] for _ in range(20)] == ["101"] * 20


async def test_a_request_that_stays_incomplete_is_408(start: Callable[..., tuple[Haproxy, list[Gateway]]]) -> None:
    proxy, _ = start(1, replaced={"timeout http-request 10s": "timeout http-request 200ms"})
    assert (await answer(proxy.port, GET)).startswith(b"HTTP/1.1 408 ")


async def test_a_request_with_too_large_headers_is_400(start: Callable[..., tuple[Haproxy, list[Gateway]]]) -> None:
    proxy, _ = start(1)
    for headers in (b"X: " + b"y" * 20_000 + b"\r\n", b"X: y\r\n" * 200):
        assert (await answer(proxy.port, GET + headers + b"\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_gateways_are_told_the_address_that_the_proxy_has_seen(
    start: Callable[..., tuple[Haproxy, list[Gateway]]],
) -> None:
    proxy, _ = start(1)
    await until(lambda: proxy.metric("backend_active_servers", "gateways") == 1, in_thread=True)
    claimed = b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Proto: https\r\n\r\n"
    seen = await answer(proxy.port, GET + claimed)
    assert seen.endswith(b"\r\n\r\nx-forwarded-for: 127.0.0.1")
