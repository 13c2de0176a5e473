"""Defines the room: its objects, their engine ids, and its place on a media node.

Records are in `model`, what a commit carries in `journal`, cascades of closing in `teardown`; the modules with plural
names handle the messages about their objects.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from roomworker.core import engine_deaths
from roomworker.core.budget import Budget, WorkerTotal, size_of_creation
from roomworker.core.fan_out import FanOut
from roomworker.core.journal import Journal
from roomworker.core.limits import DEFAULTS, Limits
from roomworker.core.media_steps import Place, Placed, Steps, expect
from roomworker.core.model import Consumer, Peer, Placement, Producer, Reporter, Session
from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES, own_capabilities
from shared.errors import NotFound, Unavailable
from shared.protocol import bus, media
from shared.protocol.rtp import EffectiveProfile, RtpCapabilities, RtpParameters

EARLY_PROFILES_LIMIT: Final = 256


class Room(Journal):
    """One room in memory. `incarnation` is random, made anew each time that the room is created.

    `total` has the bytes of all rooms of the worker, by default without a limit.
    """

    def __init__(
        self,
        name: str,
        partition: int,
        incarnation: str,
        n: int = 0,
        limits: Limits = DEFAULTS,
        total: WorkerTotal | None = None,
    ) -> None:
        super().__init__(name, n)
        self.name = name
        self.partition = partition
        self.incarnation = incarnation
        self._default_limits = limits
        self.limits = limits
        self.rtp_capabilities: RtpCapabilities = DEFAULT_ROOM_CAPABILITIES
        self.peers: dict[str, Peer] = {}
        # derived from the records, never stored
        self.now = 0
        """The room's time (ms) when the present message is handled; 0: not known yet."""
        self.fan_out = FanOut(limits)
        self.budget = Budget(total or WorkerTotal())
        self._creation_size = 0
        self.session_of: dict[str, Session] = {}
        """Open sessions by their peer's name."""
        self.producers_by_number: dict[int, tuple[Peer, Producer]] = {}
        self.consumers_by_engine: dict[str, tuple[Peer, Consumer]] = {}
        self.consumer_parameters: dict[tuple[int, str], RtpParameters] = {}
        """Parameters of consumers, by the producer's number and the receiver's capability key."""
        self._early_profiles: dict[media.EngineId, EffectiveProfile] = {}
        self.stats_due: dict[Reporter, int] = {}
        """The time at which each reporter's next stats are due (ms, room time)."""
        self.first_stats_wanted: list[Reporter] = []
        """Reporters that were just enabled: their first stats are to be asked for at once."""

    def configure(self) -> None:
        """Applies the limits and codecs that the room was created with."""
        created = self.meta.created
        self.limits = self._default_limits.overridden_by(created.limits) if created else self._default_limits
        size = size_of_creation(created)
        self.budget.add_to_room(size - self._creation_size)
        self._creation_size = size
        own = created.codecs if created else None
        self.rtp_capabilities = own_capabilities(own) if own else DEFAULT_ROOM_CAPABILITIES

    @property
    def exists(self) -> bool:
        """Whether the room has sessions, or was created by the server API; else it is deleted."""
        return bool(self.sessions) or self.meta.created is not None

    # --- numbers and names ------------------------------------------------------------------------------------

    def take_number(self) -> int:
        """Returns the next number for a peer or producer."""
        self.meta.numbers += 1
        self.save_meta()
        return self.meta.numbers

    def engine_id(self, peer: Peer, kind: media.ObjectKind, object_id: int, updates: int = 0) -> media.EngineId:
        """Returns the same id when a message is handled again, never the same for another object (DELIVERY T3).

        `updates` distinguishes an object from its predecessor with the same `object_id`, which exists beside it.
        """
        name = (
            f"{self.incarnation}/{peer.session.id}/{peer.session.joins}/{kind}/{object_id}"
            f"/{self.meta.epochs}/{peer.data.generation}/{updates}"
        )
        return str(uuid5(NAMESPACE_OID, name))

    # --- the media node ---------------------------------------------------------------------------------------

    def place(self) -> Steps[None]:
        """Places the room on a media node, unless it is on one.

        Raises `Unavailable` if there is no node, or if engines died of the room.
        """
        if self.meta.placement is not None:
            return
        placed = expect((yield Place()), Placed)
        if self.meta.placement is None:  # another peer's message may have been faster
            engine_deaths.check_media_allowed(self.meta.engine_deaths, placed.now)
            self.meta.epochs += 1
            deaths = engine_deaths.count(self.meta.engine_deaths, placed.now)
            self.meta.placement = Placement(placed.node, self.meta.epochs, deaths)
            self.meta.events = 0
            self.save_meta()

    def is_on(self, node: str, held: bus.HeldRouter) -> bool:
        """Whether the router that the node holds is the room's own."""
        placement = self.meta.placement
        return (
            placement is not None
            and held.incarnation == self.incarnation
            and (placement.node, placement.epoch) == (node, held.epoch)
        )

    @property
    def router(self) -> media.RouterRef:
        """The room's router. Raises `Unavailable` when the room is on no node."""
        placement = self.meta.placement
        if placement is None:
            raise Unavailable("the room lost its media node: create the transport again")
        return media.RouterRef(
            id=_router_id(self.incarnation, placement.epoch),
            partition=self.partition,
            room=self.name,
            incarnation=self.incarnation,
            epoch=placement.epoch,
            engine_deaths=placement.engine_deaths,
        )

    def unplace(self) -> None:
        """Takes the room off its media node, whose router is closed."""
        if self.meta.placement is not None:
            self.order(media.Close(object=self.router.id, v=self.next_n, kind="router"))
            self.meta.placement = None
            self.save_meta()

    def close_foreign_router(self, node: str, held: bus.HeldRouter) -> None:
        """Has the node close a router that is not the room's.

        The router may be of a placement that was never committed: its epoch is then used up.
        """
        if held.incarnation == self.incarnation and held.epoch > self.meta.epochs:
            self.meta.epochs = held.epoch
            self.save_meta()
        self.order_node(node, media.Close(object=held.router, v=self.next_n, kind="router"))

    # --- the budget -------------------------------------------------------------------------------------------

    @contextmanager
    def reserving(self, peer: Peer, size: int) -> Iterator[None]:
        """Counts so many bytes of the peer for what a handler makes; if the handler fails, they are given back.

        Raises what `Budget.check` raises; nothing has changed then.
        """
        self.budget.check(peer.name, size, self.limits)
        self.budget.add(peer.name, size)
        try:
            yield
        except BaseException:
            self.budget.add(peer.name, -size)
            raise

    # --- engine objects ---------------------------------------------------------------------------------------

    def guard(self, peer: Peer) -> "PreconditionGuard":
        """Notes the peer and the room's placement before a handler yields."""
        return PreconditionGuard(self, peer, self.meta.epochs)

    @contextmanager
    def releasing(self, peer: Peer, kind: media.ObjectKind, engine: media.EngineId) -> Iterator["PreconditionGuard"]:
        """Guards the making of the engine object `engine`: if the handler fails, the engine has to close it."""
        guard = self.guard(peer)
        try:
            yield guard
        except BaseException:
            if guard.placement_holds:
                self.release(peer, kind, engine)
            raise

    def release(self, peer: Peer, kind: media.ObjectKind, engine: media.EngineId) -> None:
        """Orders the engine to close an object of the peer, whose next engine ids will be others."""
        self.order(media.Close(object=engine, v=self.next_n, kind=kind))
        peer.data.generation += 1
        if self.peers.get(peer.name) is peer:
            self.save(peer.field, peer.data)

    def keep_early_profile(self, engine: media.EngineId, profile: EffectiveProfile) -> None:
        """Keeps the profile of a consumer that is being made: the engine's event may overtake the answer."""
        self._early_profiles[engine] = profile
        if len(self._early_profiles) > EARLY_PROFILES_LIMIT:
            del self._early_profiles[next(iter(self._early_profiles))]

    def take_early_profile(self, engine: media.EngineId) -> EffectiveProfile | None:
        """Returns the profile kept for a new consumer; None unless its event came first."""
        return self._early_profiles.pop(engine, None)

    def forget_consumer_parameters(self, producer: Producer) -> None:
        """Removes cached parameters of the producer's consumers."""
        for key in [key for key in self.consumer_parameters if key[0] == producer.number]:
            del self.consumer_parameters[key]


class PreconditionGuard:
    """Checks a handler's preconditions after a yield: its peer may have left, or the room lost its media node."""

    __slots__ = ("_epoch", "_peer", "_room")

    def __init__(self, room: Room, peer: Peer, epoch: int) -> None:
        self._room, self._peer, self._epoch = room, peer, epoch

    @property
    def placement_holds(self) -> bool:
        """Whether the room is still on the media node it was on."""
        return self._room.meta.placement is not None and self._room.meta.epochs == self._epoch

    def check(self) -> None:
        """Raises `NotFound` if the peer has left, `Unavailable` if the room lost its media node."""
        if self._room.peers.get(self._peer.name) is not self._peer:
            raise NotFound("peer: has left")
        if not self.placement_holds:
            raise Unavailable("the room lost its media node: try again")


@lru_cache(maxsize=4096)
def _router_id(incarnation: str, epoch: int) -> media.EngineId:
    """Returns the router's id, from a cache: every request names it, and computing it is costly."""
    return str(uuid5(NAMESPACE_OID, f"{incarnation}/router/{epoch}"))
