"""The engine port: what a media node needs of a media engine, in the terms of `shared.protocol.media`.

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
    """A media engine process. Calls take effect in the order they were made and never block.

    Callbacks run on the event loop.
    """

    async def start(self, on_event: OnEvent, on_death: OnDeath) -> None:
        """Returns when the engine takes requests. Raises `EngineFailed`.

        `on_death` is called once, with a reason, if the engine ends without `close`; pending requests have failed
        then.
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
        """Carries a request out. Calls `done` once, which may be at once.

        The result is `Failed` 503 if the engine has ended, is stuck or has too much to do.
        """
        ...

    def order(self, order: AnyOrder, parent: EngineId) -> None:
        """Carries an order out; never refuses one.

        `parent` is the router of a transport, the transport of a producer or consumer, and "" for a router.
        """
        ...

    async def close(self) -> None:
        """Ends the process with all its objects. Pending requests fail."""
        ...


class EngineFailed(Exception):
    """An engine process did not start; the text says why."""


EngineFactory: TypeAlias = Callable[[int], Engine]
"""Makes the engine with index 0, 1, …; successive engines of one index use the same media port."""
