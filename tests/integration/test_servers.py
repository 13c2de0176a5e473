"""The servers of the tests themselves: ports that are taken, and starts that fail."""

import itertools
import shutil
import socket
from collections.abc import Callable, Iterator

import pytest

from devtools import server_processes, servers
from devtools.server_processes import RabbitmqProcess, RedisProcess, ServerProcess
from devtools.starting import StartFailed, random_port

pytestmark = [pytest.mark.servers, pytest.mark.sample(1)]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def needs(kind: Callable[[], servers.Server]) -> None:
    if kind is RedisProcess and shutil.which("redis-server") is None:
        pytest.skip("no redis-server installed")
    if kind is RabbitmqProcess and not (server_processes.RABBITMQ_BIN / "rabbitmq-server").exists():
        pytest.skip("no rabbitmq-server installed")


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [(RedisProcess, "T"), (RabbitmqProcess, "..T" + ".T." + "T..")],
    ids=["redis", "rabbitmq"],
)
def test_server_starts_on_another_port_if_one_is_taken(
    kind: Callable[[], ServerProcess], attempts: str, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`T` is a port that is taken; RabbitMQ has one for AMQP, one for Erlang's distribution, one for epmd."""
    needs(kind)
    given = itertools.chain((taken if it == "T" else random_port() for it in attempts), iter(random_port, None))
    monkeypatch.setattr(server_processes, "random_port", lambda: next(given))
    server = kind()
    try:
        server.start()
        assert server.port != taken
        assert server._answers()
        port = server.port
        server.restart()
        assert server.port == port
    finally:
        server.stop()
    assert not server.folder.exists()


class Broken(RedisProcess):
    """A Redis that does not understand its command line."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--no-such-option", "yes"]


def test_failed_start_tells_the_last_log_lines_of_the_server() -> None:
    needs(RedisProcess)
    server = Broken()
    try:
        with pytest.raises(StartFailed, match=r"redis said:[\s\S]*no-such-option"):
            server.start()
    finally:
        server.stop()
