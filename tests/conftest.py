"""Options and fixtures of all tests: real Redis and RabbitMQ, started once by each worker, clean for each test."""

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devtools import cluster, probes, servers
from devtools.forks import Forker
from devtools.starting import Unavailable
from tests.support import sampling


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("plenary")
    group.addoption("--whole", action="store_true", help="run all of the long suites instead of a sample of each")
    group.addoption("--seed", type=int, help="chooses samples and random inputs; by default another each time")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if option.seed is None:
        passed_on = getattr(config, "workerinput", {})  # by the process that started this one
        option.seed = passed_on.get("seed", random.getrandbits(32))
    if getattr(option, "hypothesis_seed", None) is None:
        option.hypothesis_seed = str(option.seed)
    sampling.whole = option.whole
    given = [name for name in servers.GIVEN_BY if os.environ.get(name)]
    if given and getattr(option, "numprocesses", None):
        raise pytest.UsageError(f"{given[0]} names one server, which parallel tests cannot share: use -n 0")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Gives each process of pytest-xdist the seed: all of them must choose the same tests."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    suites = "all of the long suites" if config.option.whole else "a sample of the long suites (--whole: all)"
    return f"seed: {config.option.seed} (--seed), {suites}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.whole and not any("::" in argument for argument in config.args):
        left_out = sampling.left_out(items, config.option.seed)
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if item.get_closest_marker("xdist_group") is None and (group := _group(item)):
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str:
    """The tests that are run one after another by the same worker, or "" for a test that may run beside any other."""
    if item.get_closest_marker("browser"):
        return "browser"  # two browsers with video are what two cores can do
    return item.nodeid.partition("::")[0] if _shares_fixture_of_module(item) else ""


def _shares_fixture_of_module(item: pytest.Item) -> bool:
    """Whether the test uses what is started once for its module, and is best run by the same worker."""
    found = getattr(item, "_fixtureinfo", None)
    return found is not None and any(
        fixture[-1].scope == "module" for fixture in found.name2fixturedefs.values() if fixture
    )


@pytest.fixture(scope="session", autouse=True)
def forked_roles() -> Iterator[None]:
    """Processes of clusters are forks of one that has imported everything, unless a test asks for another way."""
    forker = Forker()
    before = cluster.Role.start
    cluster.Role.start = staticmethod(forker.start)
    yield
    cluster.Role.start = staticmethod(before)
    forker.close()


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
    """The Redis of this worker. Tests that need it clean take `redis_url`."""
    yield from _running(servers.redis)


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[servers.Server]:
    """The RabbitMQ of this worker. Tests that need it clean take `amqp_url`."""
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


@pytest.fixture
def new_rabbitmq() -> Iterator[servers.Server]:
    """A RabbitMQ that the test may kill, and that no other test has used or killed before."""
    for server in _running(servers.rabbitmq):
        if not server.killable:
            pytest.skip("this server was given by its address and must not be killed")
        yield server
