"""The engine port: all that a media node asks of a media engine, in the terms of `shared.protocol.media`.

One `Engine` is one process with routers of its own. `medianode.object_registry` keeps the state of the protocol
(repeated requests, closed objects, the tree of objects), so that an adapter only translates. A newer engine gets an
adapter beside `medianode.engines.mediasoup`.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from shared.protocol.media import AnyEvent, AnyOrder, AnyRequest, AnyResult, EngineId

Done: TypeAlias = Callable[[AnyResult], None]
OnEvent: TypeAlias = Callable[[AnyEvent], None]
OnDeath: TypeAlias = Callable[[str], None]


class Engine(Protocol):
    """Calls take effect in the order they were made; none blocks. Callbacks run on the event loop."""

    async def start(self, on_event: OnEvent, on_death: OnDeath) -> None:
        """Returns when the engine takes requests. Raises `EngineFailed`.

        `on_death` is called once, with a reason, if it ends without `close`; what was pending has failed then.
        """
        ...

    @property
    def pid(self) -> int:
        """The process id; 0 if the engine has no process of its own."""
        ...

    def create_router(self, router: EngineId) -> None:
        """Creates a router, before its first request. If that fails, so does the request."""
        ...

    def request(self, request: AnyRequest, done: Done) -> None:
        """Calls `done` once, maybe at once. `Failed` 503: the engine is dead, stuck or has too much to do."""
        ...

    def order(self, order: AnyOrder, parent: EngineId) -> None:
        """Carries an order out; never refuses one.

        `parent` is what the object lives on: a transport's router, a producer's or consumer's transport, for a router
        nothing.
        """
        ...

    async def close(self) -> None:
        """Ends the process and all that lives in it. Pending requests fail."""
        ...


class EngineFailed(Exception):
    """An engine process did not start; the text says why."""


EngineFactory: TypeAlias = Callable[[int], Engine]
"""Makes the engine with index 0, 1, …; engines of the same index follow each other on the same media port."""
