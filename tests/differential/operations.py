"""Random sequences of operations by several peers: mostly sensible, some not.

An operation is JSON, carried out alike by the oracle and by us:

    {"do": "request" | "notify" | "notifyAsRequest", "peer": …, "message": …}    what the client sends
    {"do": "disconnect" | "replace", "peer": …}     its socket closes | a second connection takes its place
    {"do": "profile", "peer": …, "consumer": n, "profile": …}     the engine sends another layer

    {"do": "closePeer", "peer": …, "appData": …}     and so on: what the application's server does to the objects

`{"$consumer": n}` as a message's id stands for the n-th consumer that the peer was told of since it joined. With
`"refuse": true` the media engine refuses what it is asked.

What sets both sides apart for good (`divergences.py`) is not generated. Hence object ids are a peer's own,
and what is wrong with a wrong message is chosen from what both sides refuse.
"""

from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from tests.differential.random_values import (
    ABSENT,
    APP_DATA,
    EXTENSIONS,
    NESTED,
    NO_NOTIFICATIONS,
    NO_REQUESTS,
    PEERS,
    PROFILES,
    RECEIVERS,
    RTCP,
    SPOILED,
    STATS,
    STREAMS,
    WRONG_IDS,
)
from tests.unit.roomworker.payloads import DTLS

Json = dict[str, Any]


def _among(id_: Any, ids: Collection[int]) -> bool:
    """Returns whether the value is one of these; `True` is not 1."""
    return type(id_) is int and id_ in ids


def _codecs(described: Json) -> frozenset[str]:
    return frozenset(codec["name"].lower() for codec in described["codecs"] if codec["name"] != "rtx")


def _can_be_updated(parameters: Json) -> bool:
    return len(parameters["encodings"]) == 1 and "muxId" not in parameters


@dataclass
class KnownConsumer:
    """A consumer as its peer knows it; `playable` if the peer has a codec for it."""

    sender: str
    producer: int
    playable: bool
    transport: int | None = None
    open: bool = True


@dataclass
class KnownProducer:
    """A producer as its peer made it."""

    transport: int
    parameters: Json


@dataclass
class State:
    """A peer as the writer of the sequence knows it."""

    joined: int = 0  # in the order of joining
    codecs: frozenset[str] = frozenset()
    spies: bool = False
    transports: dict[int, str] = field(default_factory=dict)
    connected: set[int] = field(default_factory=set)
    producers: dict[int, KnownProducer] = field(default_factory=dict)
    consumers: list[KnownConsumer] = field(default_factory=list)
    reporter: tuple[str, Any] | None = None  # whose stats were last in question


class SequenceWriter:
    """Writes one sequence."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.joins = 0
        self.closes_room = self.random.random() < 0.3
        self.names = PEERS[: self.random.choice((2, 3, 3, 4))]
        self.peers = {name: State() for name in self.names}

    def sequence(self, length: int) -> list[Json]:
        operations: list[Json] = []
        if self.random.random() < 0.7:
            for name in self.names:
                operations += [self._join(name), self._open(name, "send"), self._open(name, "recv")]
        while len(operations) < length:
            operations.append(self._operation(self.random.choice(self.names)))
        if self.closes_room:
            operations.append(self._with_app_data({"do": "closeRoom", "peer": self.names[0]}))
        return operations

    def _operation(self, name: str) -> Json:
        if not self.peers[name].joined and self.random.random() < 0.7:
            return self._join(name)
        methods, weights = zip(*WEIGHTS.items(), strict=True)
        (write,) = self.random.choices(methods, weights)
        if self._chance(0.9):
            name, write = self._possible(name, write)
        operation: Json = write(self, name)
        return operation

    def _possible(self, name: str, write: "Write") -> tuple[str, "Write"]:
        """Replaces an operation that cannot succeed yet by the first one that it needs."""
        while (needed := self._needed(name, write)) is not None:
            name, write = needed
        return name, write

    def _needed(self, name: str, write: "Write") -> "tuple[str, Write] | None":
        state = self.peers[name]
        if not state.joined and write not in (SequenceWriter._join, SequenceWriter._query, SequenceWriter._nonsense):
            return name, SequenceWriter._join
        if state.spies and write == SequenceWriter._create_producer:
            return None
        if write == SequenceWriter._create_producer and "send" not in state.transports.values():
            return name, SequenceWriter._open_to_send
        if write in OF_PRODUCERS and not state.producers:
            return name, SequenceWriter._create_producer
        if write in OF_CONSUMERS and not any(fed.open for fed in state.consumers):
            return self.random.choice(
                [other for other in self.names if other != name]
            ), SequenceWriter._create_producer
        if write == SequenceWriter._enable_consumer and not state.transports:
            return name, SequenceWriter._create_transport
        fed_by = [fed.transport for fed in state.consumers if fed.open]
        if write == SequenceWriter._enable_consumer and None not in fed_by:
            return name, SequenceWriter._pause_consumer
        if write in (SequenceWriter._change_profile, SequenceWriter._server_pauses_consumer) and not any(fed_by):
            return name, SequenceWriter._enable_consumer
        return None

    # --- parts ------------------------------------------------------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _with_app_data(self, message: Json) -> Json:
        app_data = self.random.choice((*APP_DATA, NESTED))
        return message if app_data is ABSENT else {**message, "appData": app_data}

    def _own(self, name: str, first: int, known: Any) -> Any:
        """Returns an id for the peer to use: mostly that of an object that exists."""
        if known and self._chance(0.85):
            return self.random.choice(list(known))
        if self._chance(0.3):
            return self.random.choice(WRONG_IDS)
        return self._new(self.random.choice(self.names) if self._chance(0.3) else name, first)

    def _new(self, name: str, first: int) -> int:
        return PEERS.index(name) * 100 + first + self.random.randrange(3)

    def _unused(self, name: str, first: int, known: Collection[int]) -> int:
        id_ = self._new(name, first)
        return first + PEERS.index(name) * 100 + 3 + len(known) if id_ in known and self._chance(0.85) else id_

    def _transport(self, name: str, known: Any = None) -> Any:
        known = self.peers[name].transports if known is None else known
        return self._own(name, 1, known)

    def _producer(self, name: str) -> Any:
        return self._own(name, 11, self.peers[name].producers)

    def _consumer(self, name: str, *, enabled: bool | None = None) -> Any:
        consumers = self.peers[name].consumers
        fitting = [n for n, fed in enumerate(consumers) if fed.open and enabled in (None, fed.transport is not None)]
        if fitting and self._chance(0.9):
            return {"$consumer": self.random.choice(fitting)}
        if self._chance(0.3):
            return self.random.choice(WRONG_IDS)
        return {"$consumer": self.random.randrange(len(consumers) + 1)}

    def _request(self, name: str, message: Any, **more: Any) -> Json:
        return {"do": "request", "peer": name, "message": message, **more}

    def _notify(self, name: str, message: Json, **more: Any) -> Json:
        do = "notifyAsRequest" if self._chance(0.08) else "notify"
        return {"do": do, "peer": name, "message": {"notification": True, **message}, **more}

    def _spoil(self, operation: Json) -> Json:
        """Changes a valid message into one that both sides refuse."""
        message = operation["message"]
        message.update(deepcopy(self.random.choice(SPOILED[message["method"]])))
        return operation

    # --- the room ---------------------------------------------------------------------------------------------

    def _join(self, name: str) -> Json:
        receiver = self.random.choice(RECEIVERS)
        message: Json = {"method": "join", "peerName": name, "rtpCapabilities": receiver}
        spies = self._chance(0.08)
        if spies:
            message["spy"] = True
        operation = self._request(name, self._with_app_data(message))
        if self._chance(0.05):
            return self._spoil(operation)
        state = self.peers[name]
        if not state.joined:
            self.joins += 1
            state = self.peers[name] = State(joined=self.joins, spies=spies, codecs=_codecs(receiver))
            for other in sorted(self.peers, key=lambda other: self.peers[other].joined):
                for producer in self.peers[other].producers:
                    self._feed(name, other, producer)
        return operation

    def _query(self, name: str) -> Json:
        return self._request(name, {"method": "queryRoom"})

    def _leave(self, name: str) -> Json:
        self._gone(name)
        return self._notify(name, self._with_app_data({"method": "leave"}))

    def _disconnect(self, name: str) -> Json:
        self._gone(name)
        return {"do": self.random.choice(("disconnect", "replace")), "peer": name}

    def _gone(self, name: str) -> None:
        self.peers[name] = State()
        for state in self.peers.values():
            for fed in state.consumers:
                fed.open = fed.open and fed.sender != name

    # --- transports -------------------------------------------------------------------------------------------

    def _open_to_send(self, name: str) -> Json:
        return self._open(name, "send")

    def _create_transport(self, name: str) -> Json:
        return self._open(name, self.random.choice(("send", "recv")))

    def _open(self, name: str, direction: str) -> Json:
        state = self.peers[name]
        id_ = self._unused(name, 1, state.transports)
        message: Json = {"method": "createTransport", "id": id_, "direction": direction}
        message |= self.random.choice(({}, {"options": {}}, {"options": {"udp": True, "tcp": False}}))
        connects = self._chance(0.3)
        if connects:
            message["dtlsParameters"] = {**DTLS, "role": self.random.choice(("auto", "client", "server"))}
        operation = self._request(name, self._with_app_data(message))
        if self._chance(0.05):
            return {**operation, "refuse": True}
        if self._chance(0.05):
            return self._spoil(operation)
        if state.joined and id_ not in state.transports:
            state.transports[id_] = direction
            if connects:
                state.connected.add(id_)
        return operation

    def _update_transport(self, name: str) -> Json:
        state = self.peers[name]
        id_ = self._transport(name, [id_ for id_ in state.transports if id_ not in state.connected])
        message: Json = {"method": "updateTransport", "id": id_}
        if _among(id_, state.connected) or self._chance(0.1):
            return self._notify(name, message)
        message["dtlsParameters"] = DTLS
        operation = self._notify(name, message)
        if self._chance(0.2):
            if self._chance(0.5):
                message["dtlsParameters"] = {"fingerprints": [{"algorithm": "md5", "value": "AA"}]}
                operation["message"].update(message)
            else:
                operation["refuse"] = True
            self._shut(name, id_)
        elif _among(id_, state.transports):
            state.connected.add(id_)
        return operation

    def _restart_transport(self, name: str) -> Json:
        more = {"refuse": True} if self._chance(0.1) else {}
        return self._request(name, {"method": "restartTransport", "id": self._transport(name)}, **more)

    def _close_transport(self, name: str) -> Json:
        id_ = self._transport(name)
        self._shut(name, id_)
        return self._notify(name, self._with_app_data({"method": "closeTransport", "id": id_}))

    def _shut(self, name: str, id_: Any) -> None:
        state = self.peers[name]
        if not _among(id_, state.transports):
            return
        del state.transports[id_]
        state.connected.discard(id_)
        for fed in state.consumers:
            if fed.transport == id_:
                fed.transport = None
        for producer in [producer for producer, made in state.producers.items() if made.transport == id_]:
            self._end(name, producer)

    # --- producers --------------------------------------------------------------------------------------------

    def _create_producer(self, name: str) -> Json:
        state = self.peers[name]
        id_ = self._unused(name, 11, state.producers)
        sending = [transport for transport, direction in state.transports.items() if direction == "send"]
        transport = self._transport(name, sending) if self._chance(0.95) else self.random.choice(WRONG_IDS)
        if _among(transport, state.transports) and not _among(transport, sending):
            transport = 99
        kind, parameters = self._rtp_parameters(id_)
        message = {
            "method": "createProducer",
            "id": id_,
            "kind": kind,
            "transportId": transport,
            "rtpParameters": parameters,
        }
        message |= self.random.choice(({}, {"paused": False}, {"paused": True}))
        operation = self._request(name, self._with_app_data(message))
        if self._chance(0.04):
            return {**operation, "refuse": True}
        if self._chance(0.08):
            return self._spoil(operation)
        if state.joined and not state.spies and id_ not in state.producers and _among(transport, sending):
            state.producers[id_] = KnownProducer(transport, parameters)
            for other, it in self.peers.items():
                if other != name and it.joined:
                    self._feed(other, name, id_)
        return operation

    def _feed(self, name: str, sender: str, producer: int) -> None:
        state, made = self.peers[name], self.peers[sender].producers[producer]
        state.consumers.append(KnownConsumer(sender, producer, bool(state.codecs & _codecs(made.parameters))))

    def _rtp_parameters(self, id_: int) -> tuple[str, Json]:
        kind, codecs, streams = self.random.choice(STREAMS)
        encodings = []
        for layer, stream in enumerate(streams):
            encoding: Json = {**stream, "ssrc": id_ * 100 + layer}
            if "rtx" in stream:
                encoding["rtx"] = {"ssrc": id_ * 100 + 10 + layer}
            encodings.append(encoding)
        parameters: Json = {"codecs": codecs, "encodings": encodings}
        if self._chance(0.6):
            uris = self.random.sample(EXTENSIONS[kind], self.random.randint(1, len(EXTENSIONS[kind])))
            parameters["headerExtensions"] = [{"uri": uri, "id": n + 1} for n, uri in enumerate(uris)]
        rtcp = self.random.choice(RTCP)
        if rtcp is not ABSENT:
            parameters["rtcp"] = rtcp
        if self._chance(0.2):
            parameters["muxId"] = f"m{id_}"
        return kind, parameters

    def _update_producer(self, name: str) -> Json:
        """Gives a producer new SSRCs, as devices without replaceTrack do: those send one encoding and no muxId."""
        producers = self.peers[name].producers
        plain = [id_ for id_, made in producers.items() if _can_be_updated(made.parameters)]
        id_ = self._own(name, 11, plain)
        if _among(id_, producers) and id_ not in plain:
            id_ = 99
        parameters = deepcopy(producers[id_].parameters) if id_ in plain else self._rtp_parameters(900)[1]
        for encoding in parameters["encodings"]:
            encoding["ssrc"] = self.random.randrange(1, 2**32)
        return self._notify(name, {"method": "updateProducer", "id": id_, "rtpParameters": parameters})

    def _pause_producer(self, name: str) -> Json:
        method = self.random.choice(("pauseProducer", "resumeProducer"))
        return self._notify(name, self._with_app_data({"method": method, "id": self._producer(name)}))

    def _close_producer(self, name: str) -> Json:
        id_ = self._producer(name)
        if _among(id_, self.peers[name].producers):
            self._end(name, id_)
        return self._notify(name, self._with_app_data({"method": "closeProducer", "id": id_}))

    def _end(self, name: str, producer: int) -> None:
        self.peers[name].producers.pop(producer, None)
        for state in self.peers.values():
            for fed in state.consumers:
                fed.open = fed.open and (fed.sender, fed.producer) != (name, producer)

    # --- consumers --------------------------------------------------------------------------------------------

    def _enable_consumer(self, name: str) -> Json:
        id_ = self._consumer(name, enabled=False if self._chance(0.9) else None)
        transport = self._transport(name)
        message: Json = {"method": "enableConsumer", "id": id_, "transportId": transport}
        if self._chance(0.04):
            return self._request(name, message, refuse=True)
        n = id_.get("$consumer", -1) if isinstance(id_, dict) else -1
        if not 0 <= n < len(self.peers[name].consumers):
            return self._request(name, message)
        fed = self.peers[name].consumers[n]
        if fed.playable:
            message |= self.random.choice(({}, {"paused": False}, {"paused": True}))
            message |= self.random.choice(({}, {"preferredProfile": None}, {"preferredProfile": "low"}))
            if fed.transport is None and _among(transport, self.peers[name].transports):
                fed.transport = transport
        return self._request(name, message)

    def _pause_consumer(self, name: str) -> Json:
        method = self.random.choice(("pauseConsumer", "resumeConsumer"))
        return self._notify(name, self._with_app_data({"method": method, "id": self._consumer(name)}))

    def _prefer(self, name: str) -> Json:
        profile = self.random.choice((*PROFILES, *PROFILES, "none", "ultra", None, 3))
        message = {"method": "setConsumerPreferredProfile", "id": self._consumer(name), "profile": profile}
        return self._notify(name, message)

    def _change_profile(self, name: str) -> Json:
        n = self._consumer_number(name, enabled=True)
        return {"do": "profile", "peer": name, "consumer": n, "profile": self.random.choice(PROFILES)}

    # --- the server's ----------------------------------------------------------------------------------------

    def _server(self, do: str, name: str, **more: Any) -> Json:
        return self._with_app_data({"do": do, "peer": name, **more})

    def _server_closes_peer(self, name: str) -> Json:
        self._gone(name)
        return self._server("closePeer", name)

    def _server_closes_transport(self, name: str) -> Json:
        id_ = self._number(self._transport(name))
        self._shut(name, id_)
        return self._server("closeTransport", name, id=id_)

    def _server_pauses_producer(self, name: str) -> Json:
        do = self.random.choice(("pauseProducer", "resumeProducer"))
        return self._server(do, name, id=self._number(self._producer(name)))

    def _server_closes_producer(self, name: str) -> Json:
        id_ = self._number(self._producer(name))
        if _among(id_, self.peers[name].producers):
            self._end(name, id_)
        return self._server("closeProducer", name, id=id_)

    def _server_pauses_consumer(self, name: str) -> Json:
        do = self.random.choice(("pauseConsumer", "resumeConsumer"))
        return self._server(do, name, consumer=self._consumer_number(name, enabled=self._chance(0.8) or None))

    def _server_prefers(self, name: str) -> Json:
        profile = self.random.choice(PROFILES)
        consumer = self._consumer_number(name)
        return {"do": "setConsumerPreferredProfile", "peer": name, "consumer": consumer, "profile": profile}

    def _consumer_number(self, name: str, *, enabled: bool | None = None) -> int:
        consumer = self._consumer(name, enabled=enabled)
        return consumer.get("$consumer", 50) if isinstance(consumer, dict) else 50

    def _number(self, id_: Any) -> int:
        """Server-side actions have correct types, unlike those of peers."""
        return id_ if type(id_) is int and 0 <= id_ < 2**32 else 99

    # --- others -----------------------------------------------------------------------------------------------

    def _stats(self, name: str) -> Json:
        state = self.peers[name]
        if state.reporter is None or self._chance(0.5):
            state.reporter = self._reporter(name)
        what, id_ = state.reporter
        if self._chance(0.4):
            return self._notify(name, {"method": f"disable{what}Stats", "id": id_})
        interval = self.random.choice(({}, {"interval": 1}, {"interval": 5000}, {"interval": "often"}))
        return self._notify(name, {"method": f"enable{what}Stats", "id": id_, **interval})

    def _reporter(self, name: str) -> tuple[str, Any]:
        what = self.random.choice(STATS)
        match what:
            case "Transport":
                return what, self._transport(name)
            case "Producer":
                return what, self._producer(name)
            case _:
                return what, self._consumer(name, enabled=self._chance(0.8) or None)

    def _nonsense(self, name: str) -> Json:
        if self._chance(0.5):
            return self._request(name, deepcopy(self.random.choice(NO_REQUESTS)))
        return {"do": "notify", "peer": name, "message": deepcopy(self.random.choice(NO_NOTIFICATIONS))}


Write: TypeAlias = Callable[[SequenceWriter, str], Json]

OF_PRODUCERS = (
    SequenceWriter._pause_producer,
    SequenceWriter._close_producer,
    SequenceWriter._update_producer,
    SequenceWriter._server_pauses_producer,
    SequenceWriter._server_closes_producer,
)
OF_CONSUMERS = (
    SequenceWriter._enable_consumer,
    SequenceWriter._pause_consumer,
    SequenceWriter._prefer,
    SequenceWriter._change_profile,
    SequenceWriter._server_pauses_consumer,
    SequenceWriter._server_prefers,
)

WEIGHTS: dict[Write, int] = {
    SequenceWriter._join: 1,
    SequenceWriter._query: 1,
    SequenceWriter._leave: 1,
    SequenceWriter._disconnect: 1,
    SequenceWriter._create_transport: 8,
    SequenceWriter._update_transport: 5,
    SequenceWriter._restart_transport: 2,
    SequenceWriter._close_transport: 3,
    SequenceWriter._create_producer: 14,
    SequenceWriter._update_producer: 3,
    SequenceWriter._pause_producer: 12,
    SequenceWriter._close_producer: 4,
    SequenceWriter._enable_consumer: 18,
    SequenceWriter._pause_consumer: 9,
    SequenceWriter._prefer: 6,
    SequenceWriter._change_profile: 8,
    SequenceWriter._stats: 6,
    SequenceWriter._nonsense: 3,
    SequenceWriter._server_closes_peer: 1,
    SequenceWriter._server_closes_transport: 2,
    SequenceWriter._server_pauses_producer: 12,
    SequenceWriter._server_closes_producer: 3,
    SequenceWriter._server_pauses_consumer: 10,
    SequenceWriter._server_prefers: 5,
}
