"""Completes the futures of publishes."""

import asyncio


def complete(future: asyncio.Future[None], failure: Exception | None) -> None:
    """Gives `future` its outcome, unless it has one. asyncio then does not report a failure that is never awaited."""
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
        future.exception()
