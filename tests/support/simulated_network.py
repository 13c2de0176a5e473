"""A resumable session over many connections, sockets that are cut, and a bus that loses, repeats and reorders."""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, assert_never

import orjson

from gateway.protocol import handshake
from gateway.protocol.events import Close, Events, Forgotten, Publish, ResumeAnswered
from gateway.protocol.frame_validation import validate
from gateway.protocol.resumable_session import FramePosition, ResumableSession
from loadtest.client.ledger import Ledger
from shared.protocol import bus
from shared.protocol.protoo import Frame
from tests.support.lossy_bus import LossyBus

Down: TypeAlias = bus.Message | bus.Applied | bus.Link


class RoomWorker(Protocol):
    """The room worker as its gateways see it."""

    def take(self, item: bus.AnyItem) -> list[Down]: ...

    def advance(self, at: int) -> list[Down]:
        """Lets the room worker do one of the things that it has to do."""
        ...

    def settle(self) -> list[Down]:
        """Finishes what the room worker has begun."""
        ...

    def applied(self, session: str) -> list[int]:
        """Returns the inputs of a session, in the order in which they took effect."""
        ...

    def stream(self, session: str) -> list[bytes]: ...

    def connections(self) -> Collection[int]:
        """Returns the connections that sessions go over."""
        ...


@dataclass
class WorkerSession:
    """A session in the room worker."""

    token: str
    connection: int | None
    attempt: int = 0
    last: int = 0
    seen: list[int] = field(default_factory=list)
    stream: list[bytes] = field(default_factory=list)


@dataclass
class ReferenceWorker:
    """A room worker by the docstrings of `shared.protocol.bus`; its stream is never lost."""

    sessions: dict[str, WorkerSession] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def advance(self, _: int) -> list[Down]:
        return []

    def settle(self) -> list[Down]:
        return []

    def applied(self, session: str) -> list[int]:
        return self.sessions[session].seen

    def stream(self, session: str) -> list[bytes]:
        return self.sessions[session].stream

    def connections(self) -> Collection[int]:
        return {life.connection for life in self.sessions.values() if life.connection is not None}

    def take(self, item: bus.AnyItem) -> list[Down]:
        match item:
            case bus.Connect():
                if item.session not in self.sessions and item.session not in self.ended:
                    self.sessions[item.session] = WorkerSession(item.token, item.connection)
                return self.report(item)
            case bus.Input() | bus.RejectedInput():
                return self.apply(item)
            case bus.Replay():
                life = self.sessions.get(item.session)
                if life is None or life.connection != item.connection:
                    return []
                return [*self.outputs(item.session, item.after), *self.report(item)]
            case bus.Resume():
                return self.resume(item)
            case bus.ConnectionLost():
                return self.lost(item)
            case _:
                raise AssertionError(item)

    def apply(self, item: bus.Input | bus.RejectedInput) -> list[Down]:
        life = self.sessions.get(item.session)
        if life is None or item.n != life.last + 1:
            return self.report(item, again=life is not None and item.n > life.last)
        life.last = item.n
        life.seen.append(item.n)
        before = len(life.stream)
        life.stream += [b'{"o":%d,"x":0}' % (before + 1 + more) for more in range(item.n % 3)]
        return [*self.outputs(item.session, before), *self.report(item)]

    def report(self, item: Any, *, again: bool = False) -> list[Down]:
        life = self.sessions.get(item.session)
        if life is None:
            return [bus.Applied(item.connection, item.session, -1, 0)]
        if life.connection is None:
            return []
        return [bus.Applied(life.connection, item.session, life.last, len(life.stream), again)]

    def outputs(self, session: str, after: int) -> list[Down]:
        life = self.sessions[session]
        if life.connection is None:
            return []
        return [
            bus.Message(body, [bus.Recipient(life.connection, session, out)])
            for out, body in enumerate(life.stream, 1)
            if out > after
        ]

    def resume(self, item: bus.Resume) -> list[Down]:
        life = self.sessions.get(item.session)
        again = life is not None and (item.attempt, item.connection) == (life.attempt, life.connection)
        if life is None or item.token != life.token or (item.attempt <= life.attempt and not again):
            return [bus.Link(item.connection, item.session, "refused")]
        replaced = [] if again or life.connection is None else [bus.Link(life.connection, item.session, "released")]
        life.connection, life.attempt = item.connection, item.attempt
        return [*replaced, bus.Link(item.connection, item.session, "resumed", life.last, len(life.stream))]

    def lost(self, item: bus.ConnectionLost) -> list[Down]:
        life = self.sessions.get(item.session)
        if life is not None and life.connection == item.connection:
            life.connection = None
            if item.final:
                del self.sessions[item.session]
                self.ended.add(item.session)
        return [bus.Link(item.connection, item.session, "released")]


@dataclass
class Socket:
    """A socket that keeps order and loses nothing until it is cut; each side notices the cut at its own time."""

    session: ResumableSession
    up: deque[bytes] = field(default_factory=deque)
    down: deque[bytes] = field(default_factory=deque)
    cut: bool = False
    closing: bool = False
    forgotten: bool = False


@dataclass
class SimulatedNetwork(LossyBus):
    """One client, its sockets to gateways, and the bus between gateways and room worker; steps act on all of them."""

    worker: RoomWorker
    room: str = "room"
    sockets: dict[int, Socket] = field(default_factory=dict)
    up: list[bus.AnyItem] = field(default_factory=list)
    down: list[Down] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    current: Socket | None = None
    greeted: bool = False
    sent: int = 0
    got: list[dict[str, Any]] = field(default_factory=list)

    # --- the client

    def client_sends(self, _: int) -> None:
        if not self.ledger.token:
            return
        self.sent += 1
        data = {"method": "queryRoom"}
        frame = {"request": True, "id": self.sent, "method": "mediasoup-request", "data": data}
        encoded = self.ledger.number(orjson.dumps(frame))
        if self.current is not None and self.greeted:
            self.current.up.append(encoded)

    def client_connects(self, _: int) -> None:
        """Connects anew; the old connection may still seem alive to its gateway."""
        number = len(self.sockets) + 1
        resume = None
        if self.ledger.token:
            fields = {"roomId": "r", "peerName": "p", "resumable": "1", **self.ledger.resume()}
            wanted = handshake.parse("&".join(f"{name}={value}" for name, value in fields.items()))
            assert wanted is not None
            resume = wanted.resume
            assert resume is not None
        session = ResumableSession(
            self.room,
            resume.session if resume else f"gw.{number}",
            number,
            grace=15,
            secret=f"{number:032x}",
            resume=resume,
        )
        session.connect("p", number)
        self.current = self.sockets[number] = Socket(session)
        self.greeted = False

    def client_reads(self, count: int) -> None:
        for _ in range(count + 1):
            if self.current is not None and self.current.down:
                self.client_frame(self.current, orjson.loads(self.current.down.popleft()))

    def client_frame(self, socket: Socket, frame: dict[str, Any]) -> None:
        if frame.get("method") != "session":
            assert self.greeted
            assert self.ledger.accept(frame.pop("seq", None), frame.pop("ack", None)), "a duplicate or a gap"
            self.got.append(frame)
        elif "ack" in (info := frame["data"]):
            self.ledger.acknowledged(info["ack"])
        else:
            assert not self.greeted
            assert info["resumed"] is bool(self.ledger.token)
            self.greeted = True
            self.ledger.token = self.ledger.token or info["token"]
            socket.up.extend(self.ledger.resumed(info.get("in", 0)))

    # --- the gateways

    def gateway_reads(self, at: int) -> None:
        socket = self.socket(at)
        if socket is not None and socket.up and not (socket.session.closed or socket.closing):
            frame = validate(socket.up.popleft().decode(), 0, 1000)
            assert isinstance(frame, Frame)
            place = socket.session.position_of(frame)
            assert place in (FramePosition.NEXT, FramePosition.DUPLICATE)
            if place is FramePosition.NEXT:
                socket.session.input(frame)

    def gateway_notices(self, at: int) -> None:
        """Lets a gateway notice that a socket is cut."""
        socket = self.socket(at)
        if socket is not None and socket.cut and not socket.session.closed:
            self.perform(socket, socket.session.disconnect())

    def publish(self, at: int) -> None:
        socket = self.socket(at)
        if socket is not None and (item := socket.session.take()) is not None:
            self.up.append(bus.decode_item(item))

    def deliver(self, at: int) -> None:
        if not self.down:
            return
        match self.down.pop(at % len(self.down)):
            case bus.Message() as message:
                to = message.to[0]
                socket = self.sockets[to.connection]
                self.perform(socket, socket.session.receive(to.out, message))
            case bus.Applied() as report:
                socket = self.sockets[report.connection]
                if report.n >= 0 or socket.session._base == 0:  # else come late: it would end the session
                    self.perform(socket, socket.session.applied(report))
            case bus.Link() as link:
                socket = self.sockets[link.connection]
                self.perform(socket, socket.session.linked(link))

    def perform(self, socket: Socket, events: Events) -> None:
        """Carries out events as a gateway does; `Publish` needs nothing, as items are taken from every session."""
        for event in events:
            match event:
                case bus.Message():
                    assert not socket.session.closed
                    socket.down.append(event.body)
                case Close():
                    assert socket is not self.current, "closed a connection that the client has"
                    socket.closing = socket.cut = True
                case Forgotten():
                    socket.forgotten = True
                case Publish() | ResumeAnswered():
                    pass
                case _:
                    assert_never(event)

    def flow(self, at: int) -> None:
        """Does a little of everything."""
        for more in range(3):
            self.gateway_reads(more)
            self.publish(more)
            self.work(at * more)
            self.deliver(at + more)
            self.deliver(at * more)
        self.client_reads(at)

    # --- faults

    def cut(self, _: int) -> None:
        """Cuts the connection; what is under way in the socket is lost."""
        if self.current is not None:
            self.current.cut = True
            self.current.up.clear()
            self.current = None

    def half_cut(self, _: int) -> None:
        """Cuts the connection at the client; the gateway still reads what was under way."""
        if self.current is not None:
            self.current.cut = True
            self.current = None

    def work(self, at: int) -> None:
        if self.up:
            self.down += self.worker.take(self.up.pop(at % len(self.up)))

    def advance(self, at: int) -> None:
        self.down += self.worker.advance(at)

    def broker_lost(self, at: int) -> None:
        if (socket := self.socket(at)) is not None:
            socket.session.rewind()
            socket.session.request_replay()

    def sweep(self, at: int) -> None:
        socket = self.socket(at)
        if socket is not None:
            self.sweep_session(socket)

    def sweep_session(self, socket: Socket) -> None:
        """Without the limit of the time that a client waits for its resumption: it would only try again."""
        self.perform(socket, [event for event in socket.session.sweep() if not isinstance(event, Close)])

    def socket(self, at: int) -> Socket | None:
        """Returns one of the last sockets."""
        return self.sockets[len(self.sockets) - at % min(3, len(self.sockets))] if self.sockets else None

    # --- the end

    def come_to_rest(self) -> None:
        """Delivers everything; from here on nothing is lost, and silence and dead sockets are noticed."""
        if self.current is None or self.current.cut:
            self.client_connects(0)
        for _ in range(100):
            self.settle()
            if not any(socket.session.awaits_worker for socket in self.sockets.values()):
                assert self.greeted
                return
            for socket in self.sockets.values():
                self.sweep_session(socket)
        raise AssertionError("no end")

    def settle(self) -> None:
        busy = True
        while busy:
            busy = False
            for number, socket in self.sockets.items():
                if socket is not self.current and not socket.session.closed:
                    self.perform(socket, socket.session.disconnect())
                while socket.up and not (socket.session.closed or socket.closing):
                    self.gateway_reads(len(self.sockets) - number)
                    busy = True
                while (item := socket.session.take()) is not None:
                    self.up.append(bus.decode_item(item))
            while self.up or self.down:
                self.work(0)
                self.down += self.worker.settle()
                self.deliver(0)
                busy = True
            while self.current is not None and self.current.down:
                self.client_reads(0)
                busy = True


Steps: TypeAlias = list[tuple[Callable[[SimulatedNetwork, int], None], int]]

STEPS: list[Callable[[SimulatedNetwork, int], None]] = [
    *[SimulatedNetwork.client_sends] * 4,
    *[SimulatedNetwork.client_connects] * 2,
    *[SimulatedNetwork.flow] * 6,
    *[SimulatedNetwork.client_reads] * 2,
    *[SimulatedNetwork.gateway_reads] * 2,
    SimulatedNetwork.gateway_notices,
    *[SimulatedNetwork.publish] * 4,
    *[SimulatedNetwork.work] * 3,
    *[SimulatedNetwork.advance] * 3,
    *[SimulatedNetwork.deliver] * 4,
    SimulatedNetwork.cut,
    SimulatedNetwork.half_cut,
    SimulatedNetwork.lose_up,
    SimulatedNetwork.lose_down,
    SimulatedNetwork.repeat_up,
    SimulatedNetwork.repeat_down,
    SimulatedNetwork.broker_lost,
    SimulatedNetwork.sweep,
]


def run_steps(network: SimulatedNetwork, steps: Steps, *, early: bool, leave: bool) -> None:
    """Carries out the steps, lets everything come to rest, and checks the result."""
    network.client_connects(0)
    if not early:
        network.come_to_rest()
    for step, argument in steps:
        step(network, argument)
    network.come_to_rest()
    for _ in range(5):
        network.client_sends(0)
    network.come_to_rest()
    current = network.current
    assert current is not None
    session = current.session
    assert network.worker.applied(session.id) == list(range(1, network.sent + 1))
    assert network.got == [orjson.loads(body) for body in network.worker.stream(session.id)]
    assert (network.ledger.duplicates, network.ledger.gaps) == (0, 0)
    assert session.size == 0
    assert all(socket.forgotten for socket in network.sockets.values() if socket is not current)
    assert set(network.worker.connections()) == {session.connection}, "a session that nobody will ever end"
    if leave:
        session.final = True
        network.perform(current, session.disconnect())
        network.current = None
        network.settle()
        assert current.forgotten
        assert not network.worker.connections()
