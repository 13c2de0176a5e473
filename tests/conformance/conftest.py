"""Fixtures of the conformance suites."""

from collections.abc import AsyncIterator

import pytest

from tests.support.brokers import AmqpWorld, MemoryWorld, World


@pytest.fixture(
    params=[
        "memory",
        pytest.param("classic", marks=pytest.mark.servers),
        pytest.param("quorum", marks=pytest.mark.servers),
    ]
)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world: World
    if request.param == "memory":
        world = MemoryWorld()
    else:
        world = AmqpWorld(request.getfixturevalue("amqp_url"), request.param)
    yield world
    await world.end()
