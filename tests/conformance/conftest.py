"""Fixtures of the conformance suites."""

from collections.abc import AsyncIterator

import pytest

from tests.support.brokers import AmqpHarness, BrokerHarness, MemoryHarness


@pytest.fixture(
    params=[
        "memory",
        pytest.param("classic", marks=pytest.mark.servers),
        pytest.param("quorum", marks=pytest.mark.servers),
    ]
)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[BrokerHarness]:
    harness: BrokerHarness
    if request.param == "memory":
        harness = MemoryHarness()
    else:
        harness = AmqpHarness(request.getfixturevalue("amqp_url"), request.param)
    yield harness
    await harness.close()
