"""What lives on a media node, and the promises of `shared.protocol.media`: pure code, no I/O.

* A request asked twice is carried out once: the second gets the first one's result, also while that is under
  way. A failed one leaves nothing behind and may be asked again.
* An order that is older than the last one for the same property of its object is ignored, a close that is older
  than any. Orders of one commit share a number and are all carried out.
* A close is final, for all that lives on the object too. Closed ids are remembered, the latest `MEMORY` of them.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

from medianode.engines.port import Done, Engine
from shared.protocol import media
from shared.protocol.media import EngineId, Failed, ObjectKind, RouterRef
from shared.protocol.rtp import EffectiveProfile

# Ids of late requests arrive seconds after the close; a room of 100 peers that ends closes 20,000 objects.
MEMORY = 65_536

_CLOSED = Failed(404, "the object was closed")

_Property: TypeAlias = Literal["paused", "profile", "bitrate", "key frame", "closed"]


class Entry:
    """One object. `memo`: request → its result, or who waits for it; `told`: the newest order for each property."""

    __slots__ = (
        "consumers",
        "engine",
        "id",
        "kind",
        "living_on_it",
        "memo",
        "parent",
        "paused",
        "producer",
        "profile",
        "router",
        "told",
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
        self.living_on_it: dict[EngineId, Entry] = {}
        self.consumers: dict[EngineId, Entry] = {}
        self.memo: dict[str | int, media.AnyResult | list[Done]] = {}
        self.told: dict[_Property, int] = {}
        self.paused = False
        self.profile: EffectiveProfile | None = None

    def everything(self) -> "Iterator[Entry]":
        """The object and all that closes with it, an object maybe twice."""
        yield self
        for child in self.living_on_it.values():
            yield from child.everything()
        yield from self.consumers.values()


@dataclass
class Counts:
    routers: int = 0
    transports: int = 0
    producers: int = 0
    consumers: int = 0
    paused: int = 0
    """Of the producers and consumers."""

    @property
    def load(self) -> int:
        return self.transports + self.producers + self.consumers


class Objects:
    def __init__(self) -> None:
        self._entries: dict[EngineId, Entry] = {}
        self._gone: OrderedDict[EngineId, Failed] = OrderedDict()
        self._engines: dict[Engine, Counts] = {}

    # --- engines ----------------------------------------------------------------------------------------------

    def engine_up(self, engine: Engine) -> None:
        self._engines[engine] = Counts()

    def engine_down(self, engine: Engine, reason: str) -> list[RouterRef]:
        """Forgets all that lived there; returns its routers, whose requests fail from now on with 503."""
        self._engines.pop(engine, None)
        lost = [e for e in self._entries.values() if e.kind == "router" and e.engine is engine]
        for entry in lost:
            self._remove_router(entry, Failed(503, f"the room's media engine has died: {reason}"))
        return [entry.router for entry in lost]

    @property
    def engines(self) -> int:
        return len(self._engines)

    @property
    def by_engine(self) -> Mapping[Engine, Counts]:
        return self._engines

    def counts(self) -> Counts:
        total = Counts()
        for counts in self._engines.values():
            total.routers += counts.routers
            total.transports += counts.transports
            total.producers += counts.producers
            total.consumers += counts.consumers
            total.paused += counts.paused
        return total

    def routers(self) -> list[RouterRef]:
        return [entry.router for entry in self._entries.values() if entry.kind == "router"]

    # --- requests ---------------------------------------------------------------------------------------------

    def request(self, request: media.AnyRequest, done: Done) -> None:
        """Calls `done` once with the result, maybe at once."""
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
            self._newest(entry, request, done)
        else:
            self._once(entry, "connect" if isinstance(request, media.ConnectTransport) else "create", request, done)

    def _known(self, kind: ObjectKind, target: EngineId) -> Entry | None:
        entry = self._entries.get(target)
        return entry if entry and entry.kind == kind else None

    def _refusal(self, request: media.AnyRequest, target: EngineId) -> Failed:
        gone = self._gone.get(request.router.id) or self._gone.get(target)
        if gone:
            return gone
        if target in self._entries:
            return Failed(409, "the id belongs to an object of another kind or place")
        if isinstance(request, media.CreateTransport):
            return Failed(503, "no media engine is running")
        return Failed(404, f"{type(request).__name__}: no such object on this node")

    def _transport(self, request: media.CreateTransport) -> Entry | None:
        """The transport's entry, made (and the router's, if this is its first request) unless there is one."""
        entry = self._entries.get(request.transport)
        if entry:
            return entry if entry.kind == "transport" and entry.router.id == request.router.id else None
        if request.transport in self._gone or request.router.id in self._gone:
            return None
        router = self._known("router", request.router.id) or self._place(request.router)
        return self._add("transport", request.transport, router) if router else None

    def _place(self, ref: RouterRef) -> Entry | None:
        if not self._engines or ref.id in self._entries:
            return None
        engine = min(self._engines, key=lambda e: (self._engines[e].load, self._engines[e].routers))
        engine.create_router(ref.id)
        entry = self._entries[ref.id] = Entry("router", ref.id, ref, engine, None)
        self._count(entry, 1)
        return entry

    def _child(
        self, kind: ObjectKind, target: EngineId, transport: EngineId, request: media.Produce | media.Consume
    ) -> Entry | None:
        entry = self._entries.get(target)
        if entry:
            return entry if entry.kind == kind and entry.parent and entry.parent.id == transport else None
        parent = self._known("transport", transport)
        if parent is None or target in self._gone:
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
        self._entries[target] = parent.living_on_it[target] = entry
        self._count(entry, 1)
        return entry

    def _once(self, entry: Entry, key: str | int, request: media.AnyRequest, done: Done) -> None:
        memo = entry.memo.get(key)
        if isinstance(memo, list):
            memo.append(done)
            return
        if memo is not None:
            done(_as_of_now(entry, memo))
            return
        waiting = [done]
        entry.memo[key] = waiting
        entry.engine.request(request, lambda result: self._answered(entry, key, waiting, result))

    def _answered(self, entry: Entry, key: str | int, waiting: list[Done], result: media.AnyResult) -> None:
        if not isinstance(result, Failed):
            if key in entry.memo:
                entry.memo[key] = result
            if isinstance(result, media.Consumed):
                entry.profile = entry.profile or result.effective_profile
        else:
            entry.memo.pop(key, None)
            if key == "create" and self._entries.get(entry.id) is entry:
                self._remove(entry)
        for done in waiting:
            done(result)

    def _newest(self, entry: Entry, request: media.RestartIce | media.UpdateProducer, done: Done) -> None:
        """Only the newest parameters are in force, so an older generation is answered with those."""
        seen = max((key for key in entry.memo if isinstance(key, int)), default=request.generation)
        generation = max(seen, request.generation)
        if generation > seen:
            del entry.memo[seen]
        self._once(entry, generation, request, done)

    # --- orders -----------------------------------------------------------------------------------------------

    def order(self, order: media.AnyOrder) -> None:
        entry = self._entries.get(order.object)
        if entry is None:
            if isinstance(order, media.Close):
                self._remember(order.object, _CLOSED)
            return
        if _kind(order) != entry.kind or _is_old(order, entry.told):
            return
        entry.told[_property(order)] = order.v
        entry.engine.order(order, entry.parent.id if entry.parent else "")
        if isinstance(order, media.Pause | media.Resume):
            self._pause(entry, isinstance(order, media.Pause))
        elif isinstance(order, media.Close):
            if entry.kind == "router":
                self._remove_router(entry, _CLOSED)
            else:
                self._remove(entry, self._closed)

    def _closed(self, entry: Entry) -> None:
        self._remember(entry.id, _CLOSED)

    def _remember(self, id: EngineId, failure: Failed) -> None:
        self._gone[id] = failure
        self._gone.move_to_end(id)
        if len(self._gone) > MEMORY:
            self._gone.popitem(last=False)

    def _remove_router(self, entry: Entry, failure: Failed) -> None:
        """Its id speaks for all that lived there: every request names the router."""
        self._remove(entry)
        self._remember(entry.id, failure)

    def _remove(self, entry: Entry, removed: "Callable[[Entry], None]" = lambda _: None) -> None:
        for gone in list(entry.everything()):
            if self._entries.pop(gone.id, None) is None:
                continue
            if gone.parent:
                gone.parent.living_on_it.pop(gone.id, None)
            if gone.producer:
                gone.producer.consumers.pop(gone.id, None)
            self._pause(gone, False)
            self._count(gone, -1)
            removed(gone)

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

    def concerns(self, event: media.AnyEvent) -> RouterRef | None:
        """Whom to tell; None for an object that is closed, or news that are none."""
        entry = self._entries.get(event.object)
        if entry is None:
            return None
        if isinstance(event, media.ProfileChanged):
            # The engine reports temporal layers too, which v2 does not know.
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
    """What of its object the order sets."""
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


def _is_old(order: media.AnyOrder, told: "dict[_Property, int]") -> bool:
    if isinstance(order, media.Close):
        return order.v < max(told.values(), default=0)
    return order.v < told.get(_property(order), 0)


def _as_of_now(entry: Entry, result: media.AnyResult) -> media.AnyResult:
    """Who asks again may have missed the events since: an effective profile is the present one."""
    if isinstance(result, media.Consumed) and entry.profile:
        return media.Consumed(entry.profile)
    return result
