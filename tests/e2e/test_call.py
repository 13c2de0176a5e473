"""Two people in a call, each in a browser of their own."""

import pytest

from tests.e2e.conftest import Browsers, Deployment
from tests.support.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.engine]


async def test_two_people_see_and_hear_each_other_until_one_leaves(
    deployment: Deployment, browsers: Browsers
) -> None:
    alice = await browsers.open(deployment.urls[0], "alice")
    bob = await browsers.open(deployment.urls[1], "bob")
    await alice.sees("bob")
    await bob.sees("alice")
    await alice.hears_and_sees("bob")
    await bob.hears_and_sees("alice")

    # the sender stops its camera
    await alice.click("camera")
    await bob.until("() => plenary.call.peers[0].consumers.find(({kind}) => kind === 'video').remotelyPaused")
    await bob.video_stands_still("alice")
    await alice.click("camera")
    await bob.until("() => !plenary.call.peers[0].consumers.find(({kind}) => kind === 'video').remotelyPaused")
    await bob.hears_and_sees("alice")

    # the receiver pauses it for itself
    await bob.page.get_by_test_id("tile-alice").hover()
    await bob.click("tile-pause-alice")
    await bob.until("() => plenary.call.peers[0].consumers.find(({kind}) => kind === 'video').locallyPaused")
    await bob.video_stands_still("alice")
    await alice.hears_and_sees("bob")
    await bob.page.get_by_test_id("tile-alice").hover()
    await bob.click("tile-pause-alice")
    await bob.hears_and_sees("alice")

    await alice.click("leave")
    await bob.sees()
    if deployment.cluster is not None:
        await bob.click("leave")
        await no_room_is_left(deployment)


async def test_closed_tab_is_told_to_the_others(deployment: Deployment, browsers: Browsers) -> None:
    alice = await browsers.open(deployment.urls[0], "alice")
    bob = await browsers.open(deployment.urls[1], "bob")
    await alice.hears_and_sees("bob")
    await bob.page.close()
    await alice.sees()


async def no_room_is_left(deployment: Deployment) -> None:
    """All keys of the room go but the short-lived list of closed sessions."""
    assert deployment.cluster is not None
    client = deployment.cluster.redis
    await until(lambda: all(key.endswith(b":closed_sessions") for key in client.keys("room:*")))
    assert 0 < client.ttl(b"room:{demo}:closed_sessions") <= 600
    await until(lambda: not client.keys("plenary:partition:*"))  # removed after the room
