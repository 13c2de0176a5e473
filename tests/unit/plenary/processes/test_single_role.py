"""A role is started, or closed again when the process is to stop before it serves."""

import asyncio

import pytest

from plenary.processes.event_loop import CannotStart
from plenary.processes.single_role import start_role
from shared.tls import BadCertificate


class Role:
    """A role whose start ends as the test says, or never."""

    def __init__(self, failure: Exception | None = None, *, waits: bool = False) -> None:
        self.failure = failure
        self.waits = waits
        self.cancelled = False
        self.closed = 0

    async def start(self) -> None:
        if self.waits:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        self.closed += 1


async def test_started_role_stays_open() -> None:
    role = Role()
    assert await start_role(role, asyncio.Event())
    assert role.closed == 0


async def test_role_that_waits_to_start_is_closed_when_the_process_stops() -> None:
    role, stop = Role(waits=True), asyncio.Event()
    starting = asyncio.create_task(start_role(role, stop))
    await asyncio.sleep(0)
    stop.set()

    assert not await starting
    assert (role.cancelled, role.closed) == (True, 1)


@pytest.mark.parametrize(
    "failure", [BadCertificate("the key has a passphrase"), OSError(98, "address already in use")]
)
async def test_failure_that_an_operator_can_correct_is_told(failure: Exception) -> None:
    with pytest.raises(CannotStart, match=r"passphrase|cannot listen: .*in use.*--port"):
        await start_role(Role(failure), asyncio.Event())
