"""The faults of a cluster. Each chooses its victim, injects the fault, heals, and measures the outage."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, TypeAlias

from devtools.servers import Server
from shared.protocol.bus import partition_of
from tests.fault.cluster import FaultCluster, Process
from tests.fault.participant import Participant

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
    "gateway-term",
    "gateway-freeze",
    "node-freeze",
    "redis-freeze",
    "rabbitmq-freeze",
]

NOTICED_WITHIN: Final = 40.0
BURST: Final = 6
"""Each affected participant sends so many messages just before a fault."""
ON_THE_WAY: Final = 0.04
"""The messages are sent at most so many seconds before the fault."""


@dataclass(frozen=True)
class Durations:
    """The longest of each, in seconds; how long it is in one case is chance."""

    frozen: float = 6.0
    cut: float = 8.0
    down: float = 2.0
    """Between the death of somebody and the start of the next."""
    between: float = 2.0
    """Seconds from the recovery of all to the next fault."""


@dataclass
class Injection:
    """`gaps`: from the fault to the answer to what each affected client asked right after it."""

    kind: str
    detail: str
    at: float
    in_flight: int = 0
    gaps: list[float] = field(default_factory=list)
    unanswered: int = 0


class Fault(ABC):
    kind: ClassVar[Kind]

    def __init__(
        self, cluster: FaultCluster, people: Sequence[Participant], chance: random.Random, longest: Durations
    ) -> None:
        self.cluster = cluster
        self.people = people
        self.chance = chance
        self.longest = longest
        self.detail = ""
        self.victim: object = None

    @abstractmethod
    def affected(self) -> list[Participant]:
        """Chooses the victim; those whose messages go through it."""

    @abstractmethod
    async def inject(self) -> None: ...

    @abstractmethod
    async def heal(self) -> None:
        """Returns when everything runs again."""

    async def choose(self) -> None:
        self._affected = [it for it in await asyncio.to_thread(self.affected) if it.gateway]

    async def carry_out(self) -> Injection:
        loop = asyncio.get_running_loop()
        for it in self._affected:
            it.burst(BURST)  # so that there is something at every place on the way when it happens
        await asyncio.sleep(self.chance.uniform(0.0, ON_THE_WAY))
        injection = Injection(self.kind, self.detail, loop.time())
        injection.in_flight = sum(it.in_flight for it in self.people)
        await self.inject()
        now = loop.time()
        asked = [probe for it in self._affected if (probe := it.probe()) is not None]
        await self.heal()
        while any(probe.waits for probe in asked) and loop.time() < now + NOTICED_WITHIN:
            await asyncio.sleep(0.05)
        injection.gaps = [probe.answered_at - injection.at for probe in asked if probe.answered_at is not None]
        injection.unanswered = sum(probe.waits for probe in asked)
        injection.detail = self.detail
        return injection

    def up_to(self, longest: float) -> float:
        return self.chance.uniform(longest / 8, longest)

    def most_used(self, processes: Iterable[Process]) -> tuple[Process, list[Participant]]:
        """Chooses a process by chance, one that has users if there is any."""
        candidates = list(processes)
        self.chance.shuffle(candidates)
        uses = [(process, self.users(process)) for process in candidates]
        return next((use for use in uses if use[1]), uses[0])

    def users(self, process: Process) -> list[Participant]:
        match process.kind:
            case "gateway":
                return [it for it in self.people if it.gateway == process.url]
            case "roomworker":
                active = set((self.cluster.registered(process) or {}).get("active", ()))
                partitions = self.cluster.shape.partitions
                return [it for it in self.people if partition_of(it.room.name, partitions) in active]
            case "medianode":
                nodes = {room: self.cluster.node_of(room) for room in {it.room.name for it in self.people}}
                return [it for it in self.people if nodes[it.room.name].startswith(f"{process.role.name}-")]


class ProcessFault(Fault):
    """Something that happens to one process of `among`."""

    among: ClassVar[str]
    victim: Process

    def affected(self) -> list[Participant]:
        self.victim, users = self.most_used(getattr(self.cluster, self.among))
        self.detail = self.victim.role.name
        return users


class Kill(ProcessFault):
    async def inject(self) -> None:
        self.victim.kill()

    async def heal(self) -> None:
        await asyncio.sleep(self.up_to(self.longest.down))
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


class Term(ProcessFault):
    """Ends the process by SIGTERM, so that it can close in order."""

    async def inject(self) -> None:
        self.victim.terminate()

    async def heal(self) -> None:
        code = await self.victim.until_ended()
        self.detail += f", exit code {code}"
        await asyncio.sleep(self.up_to(self.longest.down))
        await self.victim.revive()


class WorkerTerm(Term):
    kind = "worker-term"
    among = "workers"


class GatewayTerm(Term):
    kind = "gateway-term"
    among = "gateways"


class Freeze(ProcessFault):
    """Suspends the process by SIGSTOP; connections stay open."""

    def affected(self) -> list[Participant]:
        users = super().affected()
        self._seconds = self.up_to(self.longest.frozen)
        self.detail += f" for {self._seconds:.1f} s"
        return users

    async def inject(self) -> None:
        self.victim.freeze()

    async def heal(self) -> None:
        await asyncio.sleep(self._seconds)
        self.victim.thaw()


class WorkerFreeze(Freeze):
    kind = "worker-freeze"
    among = "workers"


class GatewayFreeze(Freeze):
    kind = "gateway-freeze"
    among = "gateways"


class NodeFreeze(Freeze):
    kind = "node-freeze"
    among = "nodes"


class ClientsCut(ProcessFault):
    """The connections of every client of one gateway break."""

    kind = "clients-cut"
    among = "gateways"

    async def inject(self) -> None:
        assert self.victim.client_proxy is not None
        self.victim.client_proxy.cut()

    async def heal(self) -> None:
        pass


class LinkCut(ProcessFault):
    """Cuts a process off from a server for some seconds."""

    among = "processes"
    link: ClassVar[str]

    def affected(self) -> list[Participant]:
        users = super().affected()
        self._seconds = self.up_to(self.longest.cut)
        self.detail += f" for {self._seconds:.1f} s"
        return users

    async def inject(self) -> None:
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


class ServerFault(Fault):
    server: Server


class ServerKill(ServerFault):
    async def inject(self) -> None:
        self.server.kill()

    async def heal(self) -> None:
        seconds = self.up_to(self.longest.down)
        self.detail = f"away for {seconds:.1f} s and its start"
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.restart)


class ServerFreeze(ServerFault):
    async def inject(self) -> None:
        self.server.pause()

    async def heal(self) -> None:
        seconds = self.up_to(self.longest.frozen)
        self.detail = f"for {seconds:.1f} s"
        await asyncio.sleep(seconds)
        self.server.resume()


class Rabbitmq(ServerFault):
    def affected(self) -> list[Participant]:
        self.victim = self.server = self.cluster.rabbitmq_server
        return list(self.people)


class Redis(ServerFault):
    def affected(self) -> list[Participant]:
        self.victim = self.server = self.cluster.redis_server
        return list(self.people)


class RabbitmqKill(Rabbitmq, ServerKill):
    kind = "rabbitmq-kill"


class RedisKill(Redis, ServerKill):
    kind = "redis-kill"


class RabbitmqFreeze(Rabbitmq, ServerFreeze):
    kind = "rabbitmq-freeze"


class RedisFreeze(Redis, ServerFreeze):
    kind = "redis-freeze"


FAULTS: Final[dict[str, type[Fault]]] = {
    fault.kind: fault
    for fault in (
        *(WorkerKill, WorkerTerm, WorkerFreeze),
        *(GatewayKill, GatewayTerm, GatewayFreeze),
        *(NodeKill, NodeFreeze, ClientsCut, RedisLink, RabbitmqLink),
        *(RabbitmqKill, RabbitmqFreeze, RedisKill, RedisFreeze),
    )
}
