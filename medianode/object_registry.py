"""Keeps the objects of a media node and the guarantees of `shared.protocol.media`: pure code, no I/O.

* A repeated request is carried out once: the second gets the result of the first, also while the first is being
  carried out. A failed request leaves no object and may be repeated.
* An order that is older than the last one for the same property of its object is ignored, and so is a close that is
  older than any order for the object. Orders of one commit share a number and are all carried out.
* A close is final, also for all objects below the closed one. The latest `REMOVED_IDS_LIMIT` removed ids are kept.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeAlias, assert_never

from medianode.engines.port import Done, Engine
from medianode.placement import ObjectCounts, Placement
from shared.protocol import media
from shared.protocol.media import EngineId, Failed, ObjectKind, RouterRef
from shared.protocol.rtp import EffectiveProfile

REMOVED_IDS_LIMIT = 65_536
"""Ids kept to refuse late requests, which come seconds after a close. A room of 100 peers has 20,000 objects."""

_CLOSED = Failed(404, "the object was closed")

_Property: TypeAlias = Literal["paused", "profile", "bitrate", "key frame", "closed"]


class Entry:
    """An object of the engine.

    `results` has each request's result, or the callbacks that wait for it; `latest_orders` has the commit number of
    the newest order for each property.
    """

    __slots__ = (
        "children",
        "consumers",
        "engine",
        "id",
        "kind",
        "latest_orders",
        "parent",
        "paused",
        "producer",
        "profile",
        "results",
        "router",
    )

    def __init__(
        self, kind: ObjectKind, id: EngineId, router: RouterRef, engine: Engine, parent: "Entry | None"
    ) -> None:
        self.kind = kind
        self.id = id
        self.router = router
        self.engine = engine
        self.parent = parent
        self.producer: Entry | None = None
        self.children: dict[EngineId, Entry] = {}
        self.consumers: dict[EngineId, Entry] = {}
        self.results: dict[str | int, media.AnyResult | list[Done]] = {}
        self.latest_orders: dict[_Property, int] = {}
        self.paused = False
        self.profile: EffectiveProfile | None = None

    def with_descendants(self) -> "Iterator[Entry]":
        """Yields the object and all objects that close with it; an object may come twice."""
        yield self
        for child in self.children.values():
            yield from child.with_descendants()
        yield from self.consumers.values()


class ObjectRegistry:
    """Carries requests and orders out on the engines, each object on that of its router.

    A router is created with its first transport, on the engine that `Placement` chooses. `clock` is monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: dict[EngineId, Entry] = {}
        self._removed_ids: OrderedDict[EngineId, Failed] = OrderedDict()
        self._engines: dict[Engine, ObjectCounts] = {}
        self._placement = Placement(clock)

    # --- engines ----------------------------------------------------------------------------------------------

    def add_engine(self, engine: Engine, *, spare: bool = False) -> None:
        """Places routers on this engine, too, from now on."""
        self._engines[engine] = ObjectCounts()
        self._placement.engine_started(engine, spare=spare)

    def remove_engine(self, engine: Engine, reason: str) -> list[RouterRef]:
        """Removes the engine's objects. Returns its routers, whose requests fail with 503 from now on."""
        self._engines.pop(engine, None)
        self._placement.engine_ended(engine)
        lost = self._routers_on(engine)
        for entry in lost:
            self._remove_router(entry, Failed(503, f"the room's media engine has died: {reason}"))
        return [entry.router for entry in lost]

    def _routers_on(self, engine: Engine) -> list[Entry]:
        return [e for e in self._entries.values() if e.kind == "router" and e.engine is engine]

    def is_in_use(self, engine: Engine) -> bool:
        """Whether a router is on the engine."""
        counts = self._engines.get(engine)
        return counts is not None and counts.routers > 0

    def other_suspects(self, engine: Engine) -> dict[EngineId, int]:
        """Returns for each router on the engine how many others there have at least as many engine deaths."""
        return self._placement.other_suspects(engine, [entry.id for entry in self._routers_on(engine)])

    @property
    def suspects(self) -> int:
        """The number of routers whose rooms lately had engine deaths."""
        return self._placement.suspects

    @property
    def engines(self) -> int:
        """The number of engines that run."""
        return len(self._engines)

    @property
    def by_engine(self) -> Mapping[Engine, ObjectCounts]:
        """The numbers of objects by engine."""
        return self._engines

    def counts(self) -> ObjectCounts:
        """Returns the numbers of objects on all engines."""
        total = ObjectCounts()
        for counts in self._engines.values():
            total.routers += counts.routers
            total.transports += counts.transports
            total.producers += counts.producers
            total.consumers += counts.consumers
            total.paused += counts.paused
        return total

    def routers(self) -> list[RouterRef]:
        """Returns the routers of all engines."""
        return [entry.router for entry in self._entries.values() if entry.kind == "router"]

    def has(self, router: RouterRef) -> bool:
        """Whether the router has been made."""
        return router.id in self._entries

    # --- requests ---------------------------------------------------------------------------------------------

    def request(self, request: media.AnyRequest, done: Done) -> None:
        """Carries out a request. Calls `done` once with the result, which may be at once."""
        match request:
            case media.CreateTransport(transport=target):
                entry = self._transport(request) or self._refusal(request, target)
            case media.Produce(producer=target, transport=transport):
                entry = self._child("producer", target, transport, request) or self._refusal(request, target)
            case media.Consume(consumer=target, transport=transport):
                entry = self._child("consumer", target, transport, request) or self._refusal(request, target)
            case media.ConnectTransport(transport=target) | media.RestartIce(transport=target):
                entry = self._known("transport", target) or self._refusal(request, target)
            case media.UpdateProducer(producer=target):
                entry = self._known("producer", target) or self._refusal(request, target)
            case media.GetStats(kind=kind, object=target):
                entry = self._known(kind, target) or self._refusal(request, target)
            case _:
                assert_never(request)
        if isinstance(entry, Failed):
            done(entry)
        elif isinstance(request, media.GetStats):
            entry.engine.request(request, done)
        elif isinstance(request, media.RestartIce | media.UpdateProducer):
            self._request_newest(entry, request, done)
        else:
            self._request_once(
                entry, "connect" if isinstance(request, media.ConnectTransport) else "create", request, done
            )

    def _known(self, kind: ObjectKind, target: EngineId) -> Entry | None:
        entry = self._entries.get(target)
        return entry if entry and entry.kind == kind else None

    def _refusal(self, request: media.AnyRequest, target: EngineId) -> Failed:
        failure = self._removed_ids.get(request.router.id) or self._removed_ids.get(target)
        if failure:
            return failure
        if target in self._entries:
            return Failed(409, "the id belongs to an object of another kind or place")
        if isinstance(request, media.CreateTransport):
            return Failed(503, "no media engine is running")
        return Failed(404, f"{type(request).__name__}: no such object on this node")

    def _transport(self, request: media.CreateTransport) -> Entry | None:
        """Returns the transport's entry, made with its router's if necessary; None if it must not exist."""
        entry = self._entries.get(request.transport)
        if entry:
            return entry if entry.kind == "transport" and entry.router.id == request.router.id else None
        if request.transport in self._removed_ids or request.router.id in self._removed_ids:
            return None
        router = self._known("router", request.router.id) or self._place(request.router)
        return self._add("transport", request.transport, router) if router else None

    def _place(self, ref: RouterRef) -> Entry | None:
        if not self._engines or ref.id in self._entries:
            return None
        engine = self._placement.choose(self._engines, ref)
        engine.create_router(ref.id)
        entry = self._entries[ref.id] = Entry("router", ref.id, ref, engine, None)
        self._placement.router_placed(engine, ref)
        self._count(entry, 1)
        return entry

    def _child(
        self, kind: ObjectKind, target: EngineId, transport: EngineId, request: media.Produce | media.Consume
    ) -> Entry | None:
        entry = self._entries.get(target)
        if entry:
            return entry if entry.kind == kind and entry.parent and entry.parent.id == transport else None
        parent = self._known("transport", transport)
        if parent is None or target in self._removed_ids:
            return None
        producer = None
        if isinstance(request, media.Consume):
            producer = self._known("producer", request.producer)
            if producer is None:
                return None
        entry = self._add(kind, target, parent)
        self._pause(entry, request.paused)
        if producer:
            entry.producer = producer
            producer.consumers[target] = entry
        return entry

    def _add(self, kind: ObjectKind, target: EngineId, parent: Entry) -> Entry:
        entry = Entry(kind, target, parent.router, parent.engine, parent)
        self._entries[target] = parent.children[target] = entry
        self._count(entry, 1)
        return entry

    def _request_once(self, entry: Entry, key: str | int, request: media.AnyRequest, done: Done) -> None:
        known = entry.results.get(key)
        if isinstance(known, list):
            known.append(done)
            return
        if known is not None:
            done(_with_present_profile(entry, known))
            return
        waiting = [done]
        entry.results[key] = waiting
        entry.engine.request(request, lambda result: self._answered(entry, key, waiting, result))

    def _answered(self, entry: Entry, key: str | int, waiting: list[Done], result: media.AnyResult) -> None:
        if not isinstance(result, Failed):
            if key in entry.results:
                entry.results[key] = result
            if isinstance(result, media.Consumed):
                entry.profile = entry.profile or result.effective_profile
        else:
            entry.results.pop(key, None)
            if key == "create" and self._entries.get(entry.id) is entry:
                self._remove(entry)
        for done in waiting:
            done(result)

    def _request_newest(self, entry: Entry, request: media.RestartIce | media.UpdateProducer, done: Done) -> None:
        """Carries out a request of a newer generation; answers an older one with the result of the newest."""
        seen = max((key for key in entry.results if isinstance(key, int)), default=request.generation)
        generation = max(seen, request.generation)
        if generation > seen:
            del entry.results[seen]
        self._request_once(entry, generation, request, done)

    # --- orders -----------------------------------------------------------------------------------------------

    def order(self, order: media.AnyOrder) -> None:
        entry = self._entries.get(order.object)
        if entry is None:
            if isinstance(order, media.Close):
                self._record_removed(order.object, _CLOSED)
            return
        if _kind(order) != entry.kind or _is_old(order, entry.latest_orders):
            return
        entry.latest_orders[_property(order)] = order.v
        entry.engine.order(order, entry.parent.id if entry.parent else "")
        if isinstance(order, media.Pause | media.Resume):
            self._pause(entry, isinstance(order, media.Pause))
        elif isinstance(order, media.Close):
            if entry.kind == "router":
                self._remove_router(entry, _CLOSED)
            else:
                self._remove(entry, self._record_closed)

    def _record_closed(self, entry: Entry) -> None:
        self._record_removed(entry.id, _CLOSED)

    def _record_removed(self, id: EngineId, failure: Failed) -> None:
        self._removed_ids[id] = failure
        self._removed_ids.move_to_end(id)
        if len(self._removed_ids) > REMOVED_IDS_LIMIT:
            self._removed_ids.popitem(last=False)

    def _remove_router(self, entry: Entry, failure: Failed) -> None:
        """Records only the router's id as removed: every request names its router."""
        self._remove(entry)
        self._placement.router_removed(entry.engine, entry.id)
        self._record_removed(entry.id, failure)

    def _remove(self, entry: Entry, removed: "Callable[[Entry], None]" = lambda _: None) -> None:
        for removed_entry in list(entry.with_descendants()):
            if self._entries.pop(removed_entry.id, None) is None:
                continue
            if removed_entry.parent:
                removed_entry.parent.children.pop(removed_entry.id, None)
            if removed_entry.producer:
                removed_entry.producer.consumers.pop(removed_entry.id, None)
            self._pause(removed_entry, False)
            self._count(removed_entry, -1)
            removed(removed_entry)

    def _pause(self, entry: Entry, paused: bool) -> None:
        counts = self._engines.get(entry.engine)
        if counts:
            counts.paused += paused - entry.paused
        entry.paused = paused

    def _count(self, entry: Entry, change: int) -> None:
        counts = self._engines.get(entry.engine)
        if counts:
            name = f"{entry.kind}s"
            setattr(counts, name, getattr(counts, name) + change)

    # --- events -----------------------------------------------------------------------------------------------

    def router_of(self, event: media.AnyEvent) -> RouterRef | None:
        """Returns the router whose room an event is for; None if the object is closed or nothing has changed."""
        entry = self._entries.get(event.object)
        if entry is None:
            return None
        if isinstance(event, media.ProfileChanged):
            # The engine also reports temporal layers, which v2 does not have.
            if event.profile == entry.profile:
                return None
            entry.profile = event.profile
        return entry.router


def _kind(order: media.AnyOrder) -> ObjectKind:
    match order:
        case media.Close(kind=kind):
            return kind
        case media.Pause(kind=kind) | media.Resume(kind=kind):
            return kind
        case media.SetPreferredProfile() | media.RequestKeyFrame():
            return "consumer"
        case media.SetMaxIncomingBitrate():
            return "transport"
        case _:
            assert_never(order)


def _property(order: media.AnyOrder) -> "_Property":
    """Returns the property of its object that an order sets."""
    match order:
        case media.Pause() | media.Resume():
            return "paused"
        case media.SetPreferredProfile():
            return "profile"
        case media.SetMaxIncomingBitrate():
            return "bitrate"
        case media.RequestKeyFrame():
            return "key frame"
        case media.Close():
            return "closed"
        case _:
            assert_never(order)


def _is_old(order: media.AnyOrder, latest: "dict[_Property, int]") -> bool:
    if isinstance(order, media.Close):
        return order.v < max(latest.values(), default=0)
    return order.v < latest.get(_property(order), 0)


def _with_present_profile(entry: Entry, result: media.AnyResult) -> media.AnyResult:
    """Returns the result of a repeated request with the present effective profile: events may have been missed."""
    if isinstance(result, media.Consumed) and entry.profile:
        return media.Consumed(entry.profile)
    return result
