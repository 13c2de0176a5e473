"""Fixtures for all tests: real Redis and RabbitMQ, started once a session, clean for each test."""

from collections.abc import Callable, Iterator

import pytest

from devtools import probes, servers
from devtools.starting import Unavailable


def _running(make: Callable[[], servers.Server]) -> Iterator[servers.Server]:
    try:
        server = make()
    except Unavailable as why:
        pytest.skip(str(why))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Server]:
    """The session's Redis. Tests that need it clean take `redis_url`."""
    yield from _running(servers.redis)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[servers.Server]:
    """The session's RabbitMQ. Tests that need it clean take `amqp_url`."""
    yield from _running(servers.rabbitmq)


@pytest.fixture
def redis_url(redis_server: servers.Server) -> str:
    """An empty Redis database."""
    probes.empty_redis(redis_server.url)
    return redis_server.url


@pytest.fixture
def amqp_url(rabbitmq_server: servers.Server) -> str:
    """A RabbitMQ without partition queues of an earlier test, whatever their type was."""
    probes.empty_rabbitmq(rabbitmq_server.url)
    return rabbitmq_server.url


def _killable(server: servers.Server, answers: Callable[[str], bool]) -> Iterator[servers.Server]:
    if not server.killable:
        pytest.skip("this server was given by its address and must not be killed")
    yield server
    if not answers(server.url):
        server.restart()


@pytest.fixture
def killable_redis(redis_server: servers.Server, redis_url: str) -> Iterator[servers.Server]:
    """A clean Redis that the test may kill, pause and restart; it runs again afterwards."""
    yield from _killable(redis_server, probes.redis_answers)


@pytest.fixture
def killable_rabbitmq(rabbitmq_server: servers.Server, amqp_url: str) -> Iterator[servers.Server]:
    """A clean RabbitMQ that the test may kill, pause and restart; it runs again afterwards."""
    yield from _killable(rabbitmq_server, probes.rabbitmq_answers)
