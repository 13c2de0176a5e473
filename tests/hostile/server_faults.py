"""Attacks that leave a server out of work: how it is done and undone, and what must hold meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from picows import WSError

from loadtest.client.protoo import Ended, Hooks, ProtooClient, Refusal
from tests.hostile.stage import Stage
from tests.hostile.victims import PROBED, Victims

SPACE_LEFT: Final = 6 * 1024 * 1024
"""Bytes that Redis may still grow when rooms begin to."""
UNAVAILABLE: Final = 503
TRY_AGAIN_LATER: Final = 1013
NOTICED_WITHIN: Final = 15.0
"""Seconds in which a gateway notices that it cannot serve: RabbitMQ counts as away after ten."""


@asynccontextmanager
async def full_redis(stage: Stage) -> AsyncIterator[None]:
    """Leaves Redis little space; it gets no more, not even afterwards, as in production."""
    used = int(stage.redis.info("memory")["used_memory"])
    stage.redis.config_set("maxmemory", str(used + SPACE_LEFT))
    yield


@asynccontextmanager
async def blocked_rabbitmq(stage: Stage) -> AsyncIterator[None]:
    """Makes RabbitMQ's memory alarm go off: it reads nothing from publishers."""
    await asyncio.to_thread(stage.broker.ctl, "set_vm_memory_high_watermark", "0.000001")
    try:
        yield
    finally:
        await asyncio.to_thread(stage.broker.ctl, "set_vm_memory_high_watermark", "0.4")


async def check_full_redis(stage: Stage, victims: Victims, seconds: float) -> dict[str, bool]:
    """Looks, while rooms grow, at what the row of the issue says."""
    noticed = await _within(seconds, lambda: _is_not_ready(stage))
    found = {"not ready while Redis is full": noticed}
    found["newcomers are closed with 1013"] = await _close_code(stage) == TRY_AGAIN_LATER
    found["requests are answered, or refused with 503"] = await _is_answered(victims.clients[0])
    try:
        async with asyncio.timeout(30):
            await asyncio.to_thread(stage.cluster.roomworker, "worker2")
        found["a new room worker starts"] = True
    except (AssertionError, TimeoutError):
        found["a new room worker starts"] = False
    return found


async def check_blocked_rabbitmq(stage: Stage, victims: Victims, seconds: float) -> dict[str, bool]:
    """Looks, while RabbitMQ takes nothing, whether that is noticed and requests are refused."""
    client = ProtooClient(stage.ws, PROBED, "asker", resumable=False, hooks=Hooks(notified=_ignore))
    code = 0
    with suppress(OSError, WSError, TimeoutError, Ended):
        await client.open()
        try:
            async with asyncio.timeout(NOTICED_WITHIN):
                await client.request({"method": "queryRoom"})
        except Refusal as refusal:
            code = refusal.code
    noticed = await _within(max(1.0, seconds - NOTICED_WITHIN), lambda: _is_not_ready(stage))
    await client.abort()
    return {"requests are answered 503 after 10 s": code == UNAVAILABLE, "not ready while blocked": noticed}


async def _is_answered(client: ProtooClient) -> bool:
    """Whether a request is answered soon, with 503 or as always."""
    try:
        async with asyncio.timeout(5):
            await client.request({"method": "queryRoom"})
    except Refusal as refusal:
        return refusal.code == UNAVAILABLE
    except (Ended, TimeoutError):
        return False
    return True


async def _is_not_ready(stage: Stage) -> bool:
    return not await stage.ready()


async def _within(seconds: float, condition: Any) -> bool:
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while loop.time() < ends:
        if await condition():
            return True
        await asyncio.sleep(0.25)
    return False


async def _close_code(stage: Stage) -> int:
    """Returns the close code that a new client gets; 0 if it is let in."""
    client = ProtooClient(stage.ws, PROBED, "newcomer", resumable=True, hooks=Hooks(notified=_ignore))
    try:
        async with asyncio.timeout(5):
            await client.open()
    except Ended as ended:
        return ended.code
    except (OSError, WSError, TimeoutError):
        return -1
    finally:
        await client.abort()
    return 0


def _ignore(_method: str, _data: Any) -> None:
    """Notifications are not looked at."""
