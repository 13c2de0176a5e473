"""Two browsers in a call through everything: HAProxy, the image's page and engine, the published media ports."""

import asyncio

import pytest

from tests.compose.stack import Stack, until_settled
from tests.e2e.conftest import Browsers
from tests.e2e.test_resume import _WATCH, nothing_happened


@pytest.mark.browser
async def test_call_continues_when_a_gateway_is_removed(cluster: Stack, browsers: Browsers) -> None:
    await asyncio.to_thread(cluster.scale, gateways=2, workers=1)
    await until_settled("everybody is well", lambda: not cluster.unhealthy())
    alice = await browsers.open(cluster.url, "alice")
    bob = await browsers.open(cluster.url, "bob")
    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")
    await until_settled("one at each gateway", lambda: connections(cluster) == [1, 1])
    for page in (alice, bob):
        await page.page.evaluate(_WATCH)

    await asyncio.to_thread(cluster.scale, gateways=1, workers=1)
    await until_settled("both at the one that is left", lambda: connections(cluster) == [2])

    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")
    for page in (alice, bob):
        await nothing_happened(page)
    assert sum([await page.page.evaluate("() => plenary.resumed") for page in (alice, bob)]) == 1
    await until_settled("one has ended", lambda: len(cluster.ended()) == 1)
    assert [it.code for it in cluster.ended()] == [0]


def connections(cluster: Stack) -> list[int]:
    return [info["connections"] for info in cluster.members("gateways").values()]
