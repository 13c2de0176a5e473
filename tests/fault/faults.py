"""What can happen to a cluster. Each fault names its victim, strikes, heals, and measures who noticed."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, TypeAlias

from shared.protocol.bus import partition_of
from tests.fault.participant import Participant
from tests.fault.world import Process, World

Kind: TypeAlias = Literal[
    "worker-kill",
    "worker-term",
    "worker-freeze",
    "gateway-kill",
    "node-kill",
    "clients-cut",
    "rabbitmq-kill",
    "redis-kill",
    "redis-link",
    "rabbitmq-link",
]

NOTICED_WITHIN: Final = 40.0
DOWN_SECONDS: Final = 2.0
"""How long somebody who was killed may be away before the next is started."""


@dataclass
class Injection:
    """`gaps`: from the fault to the answer to what each affected client asked right after it."""

    kind: str
    detail: str
    at: float
    affected: int = 0
    in_flight: int = 0
    gaps: list[float] = field(default_factory=list)
    unanswered: int = 0


class Fault(ABC):
    kind: ClassVar[Kind]

    def __init__(self, world: World, people: Sequence[Participant], chance: random.Random) -> None:
        self.world = world
        self.people = people
        self.chance = chance
        self.detail = ""

    @abstractmethod
    def affected(self) -> list[Participant]:
        """Chooses the victim; those whose messages go through it."""

    @abstractmethod
    async def strike(self) -> None: ...

    @abstractmethod
    async def heal(self) -> None:
        """Returns when everything runs again."""

    async def carry_out(self) -> Injection:
        affected = [it for it in await asyncio.to_thread(self.affected) if it.at]
        loop = asyncio.get_running_loop()
        for it in affected:
            it.probe()  # this one is on its way when it happens
        injection = Injection(self.kind, self.detail, loop.time(), len(affected))
        injection.in_flight = sum(it.in_flight for it in self.people)
        await self.strike()
        waiting = [answer for it in affected if (answer := _probe(it, injection)) is not None]
        await self.heal()
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=NOTICED_WITHIN)
            injection.unanswered = len(late)
        injection.detail = self.detail
        return injection

    def for_a_while(self) -> float:
        return self.chance.uniform(0.0, DOWN_SECONDS)

    def most_used(self, processes: Iterable[Process]) -> tuple[Process, list[Participant]]:
        """One of them by chance, one that somebody uses if there is any."""
        candidates = list(processes)
        self.chance.shuffle(candidates)
        uses = [(process, self.users(process)) for process in candidates]
        return next((use for use in uses if use[1]), uses[0])

    def users(self, process: Process) -> list[Participant]:
        match process.kind:
            case "gateway":
                return [it for it in self.people if it.at == process.url]
            case "roomworker":
                active = set((self.world.registered(process) or {}).get("active", ()))
                partitions = self.world.shape.partitions
                return [it for it in self.people if partition_of(it.room, partitions) in active]
            case "medianode":
                nodes = {room: self.world.node_of(room) for room in {it.room for it in self.people}}
                return [it for it in self.people if nodes[it.room].startswith(f"{process.role.name}-")]


def _probe(participant: Participant, injection: Injection) -> "asyncio.Future[None] | None":
    """Asks something now, and notes in the injection how long after it that was answered."""
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def then(now: float) -> None:
        if not answered.done():
            injection.gaps.append(now - injection.at)
            answered.set_result(None)

    return answered if participant.probe(then) else None


class ProcessFault(Fault):
    """Something that happens to one process of `among`."""

    among: ClassVar[str]
    victim: Process

    def affected(self) -> list[Participant]:
        self.victim, users = self.most_used(getattr(self.world, self.among))
        self.detail = self.victim.role.name
        return users


class Kill(ProcessFault):
    async def strike(self) -> None:
        self.victim.kill()

    async def heal(self) -> None:
        await asyncio.sleep(self.for_a_while())
        await self.victim.revive()


class WorkerKill(Kill):
    kind = "worker-kill"
    among = "workers"


class GatewayKill(Kill):
    kind = "gateway-kill"
    among = "gateways"


class NodeKill(Kill):
    kind = "node-kill"
    among = "nodes"


class WorkerTerm(ProcessFault):
    kind = "worker-term"
    among = "workers"

    async def strike(self) -> None:
        self.victim.terminate()

    async def heal(self) -> None:
        code = await self.victim.until_ended()
        self.detail += f", exit code {code}"
        await asyncio.sleep(self.for_a_while())
        await self.victim.revive()


class WorkerFreeze(ProcessFault):
    kind = "worker-freeze"
    among = "workers"

    def affected(self) -> list[Participant]:
        users = super().affected()
        self._seconds = self.chance.uniform(1.0, 6.0)
        self.detail += f" for {self._seconds:.1f} s"
        return users

    async def strike(self) -> None:
        self.victim.freeze()

    async def heal(self) -> None:
        await asyncio.sleep(self._seconds)
        self.victim.thaw()


class ClientsCut(ProcessFault):
    """The connections of every client of one gateway break."""

    kind = "clients-cut"
    among = "gateways"

    async def strike(self) -> None:
        assert self.victim.front is not None
        self.victim.front.cut()

    async def heal(self) -> None:
        pass


class LinkCut(ProcessFault):
    """One process cannot reach a server for some seconds."""

    among = "processes"
    link: ClassVar[str]

    def affected(self) -> list[Participant]:
        users = super().affected()
        self._seconds = self.chance.uniform(0.5, 8.0)
        self.detail += f" for {self._seconds:.1f} s"
        return users

    async def strike(self) -> None:
        self.victim.cut(self.link)

    async def heal(self) -> None:
        await asyncio.sleep(self._seconds)
        await self.victim.heal(self.link)


class RedisLink(LinkCut):
    kind = "redis-link"
    link = "redis"


class RabbitmqLink(LinkCut):
    kind = "rabbitmq-link"
    link = "rabbitmq"


class ServerKill(Fault):
    def affected(self) -> list[Participant]:
        return list(self.people)

    async def strike(self) -> None:
        self.server.kill()

    async def heal(self) -> None:
        seconds = self.for_a_while()
        self.detail = f"away for {seconds:.1f} s and its start"
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.restart)

    @property
    @abstractmethod
    def server(self): ...


class RabbitmqKill(ServerKill):
    kind = "rabbitmq-kill"

    @property
    def server(self):
        return self.world.rabbitmq_server


class RedisKill(ServerKill):
    kind = "redis-kill"

    @property
    def server(self):
        return self.world.redis_server


FAULTS: Final[dict[str, type[Fault]]] = {
    fault.kind: fault
    for fault in (
        *(WorkerKill, WorkerTerm, WorkerFreeze, GatewayKill, NodeKill),
        *(ClientsCut, RabbitmqKill, RedisKill, RedisLink, RabbitmqLink),
    )
}
