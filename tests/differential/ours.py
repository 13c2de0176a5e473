"""The same operations on our room core: a `Runner` in the unit tests' `World`, with a media node that plays along."""

import json
from typing import Any

from roomworker.dispatch import PEER_HANDLERS
from shared.protocol import client, media
from shared.protocol.rtp import DtlsParameters, Fingerprint, IceCandidate, IceParameters
from tests.unit.roomworker.kit import Asked, Client, World

Json = dict[str, Any]

NO_SUCH_CONSUMER = 99999
FINGERPRINTS = ("sha-1", "sha-224", "sha-256", "sha-384", "sha-512")
LOCAL_ROLE: dict[str, Any] = {"auto": "client", "client": "server", "server": "client"}

HAS_STATS = client.EnableTransportStats in PEER_HANDLERS


class Media(World):
    """A room whose media node answers at once, as the oracle's engine does."""

    def __init__(self) -> None:
        self.refusing = False
        self.profile: Any = "none"
        super().__init__()

    def answer(self, result: media.AnyResult | None = None, at: int = 0) -> media.AnyRequest:
        return super().answer(result or self._result(self.asked[at]), at)

    def _result(self, asked: Asked) -> media.AnyResult:
        request = asked.request
        if self.refusing:
            return media.Failed(500, "refused")
        match request:
            case media.CreateTransport(dtls_parameters=dtls):
                return self._created(dtls)
            case media.ConnectTransport(dtls_parameters=dtls):
                return media.TransportConnected(LOCAL_ROLE[dtls.role]) if _known(dtls) else _NO_FINGERPRINT
            case media.RestartIce(generation=generation):
                return media.IceRestarted(IceParameters(f"fragment{generation}", "password", ice_lite=True))
            case media.Produce():
                return media.Produced()
            case media.Consume():
                return media.Consumed(self.profile)
            case media.GetStats():
                return media.Stats([])

    def _created(self, dtls: DtlsParameters | None) -> media.AnyResult:
        if dtls is not None and not _known(dtls):
            return _NO_FINGERPRINT
        role = "auto" if dtls is None else LOCAL_ROLE[dtls.role]
        return media.TransportCreated(
            ice_parameters=IceParameters("fragment0", "password", ice_lite=True),
            ice_candidates=[IceCandidate("1", 1, "192.0.2.1", "udp", 40000, "host")],
            dtls_parameters=DtlsParameters([Fingerprint("sha-256", "CC:DD")], role),
        )


_NO_FINGERPRINT = media.Failed(400, "no known fingerprint algorithm")


def _known(dtls: DtlsParameters) -> bool:
    return any(fingerprint.algorithm in FINGERPRINTS for fingerprint in dtls.fingerprints)


class Connection:
    """One peer's connection, and the consumers it was told of since it joined."""

    def __init__(self, world: Media, name: str) -> None:
        self.client: Client = world.connected(name)
        self.consumers: list[int] = []
        self.profiles: dict[str, str] = {}

    def consumer(self, n: int) -> int:
        return self.consumers[n] if n < len(self.consumers) else NO_SUCH_CONSUMER

    def resolved(self, message: Any) -> Any:
        if isinstance(message, dict) and isinstance(message.get("id"), dict) and "$consumer" in message["id"]:
            return {**message, "id": self.consumer(message["id"]["$consumer"])}
        return message

    def take(self) -> list[Json]:
        frames = [_frame(frame) for frame in self.client.frames]
        self.client.hush()
        for frame in frames:
            self._learn(frame)
        return frames

    def _learn(self, frame: Json) -> None:
        notification, answer = frame.get("notification"), frame.get("answer", {})
        if notification is not None and notification["method"] == "newConsumer":
            self.consumers.append(notification["id"])
        elif "peers" in answer.get("data", {}):
            peers = answer["data"]["peers"]
            self.consumers = [consumer["id"] for peer in peers for consumer in peer["consumers"]]
            self.profiles = {}


def _frame(frame: Json) -> Json:
    if frame.get("notification"):
        assert frame["method"] == client.NOTIFICATION
        return {"notification": frame["data"]}
    if frame.get("ok"):
        return {"answer": {"ok": True, "data": frame["data"]}}
    return {"answer": {"ok": False, "error": f"{frame['errorCode']} {frame['errorReason']}"}}


class Ours:
    """One room through one sequence."""

    def __init__(self) -> None:
        self._world = Media()
        self._connections: dict[str, Connection] = {}
        self._events = 0

    def perform(self, operations: list[Json]) -> list[Json]:
        """{frames, uncaught} for each operation; frames by peer, in order."""
        return [self._perform(operation) for operation in operations]

    def _perform(self, operation: Json) -> Json:
        self._world.refusing = operation.get("refuse", False)
        self._start(operation)
        frames = {name: taken for name, connection in self._connections.items() if (taken := connection.take())}
        uncaught = [repr(defect) for defect in self._world.defects]
        self._world.defects.clear()
        return {"frames": frames, "uncaught": uncaught}

    def _start(self, operation: Json) -> None:
        connection = self._connection(operation["peer"])
        match operation["do"]:
            case "request":
                self._send(connection, client.REQUEST, operation["message"], asks=True)
            case "notify":
                self._send(connection, client.NOTIFICATION, operation["message"], asks=False)
            case "notifyAsRequest":
                self._send(connection, client.NOTIFICATION, operation["message"], asks=True)
            case "disconnect":
                connection.client.disconnect()
                del self._connections[operation["peer"]]
            case "replace":
                self._connections[operation["peer"]] = Connection(self._world, operation["peer"])
            case "profile":
                self._change_profile(connection, connection.consumer(operation["consumer"]), operation["profile"])
            case unknown:
                raise ValueError(f"unknown operation {unknown}")

    def _connection(self, peer: str) -> Connection:
        if peer not in self._connections:
            self._connections[peer] = Connection(self._world, peer)
        return self._connections[peer]

    def _send(self, connection: Connection, method: str, message: Any, *, asks: bool) -> None:
        it = connection.client
        message = connection.resolved(message)
        if isinstance(message, dict) and message.get("method") == "enableConsumer" and "id" in message:
            self._world.profile = connection.profiles.get(json.dumps(message["id"]), "none")
        it.ids += 1
        item = it.input(method, it.ids if asks else None, json.dumps(message).encode())
        self._world.receive(item, it.gateway)

    def _change_profile(self, connection: Connection, consumer: int, profile: str) -> None:
        peer = self._world.room.peers.get(connection.client.peer)
        fed = peer.consumers.get(consumer) if peer else None
        if fed is None or not fed.enabled:
            return
        connection.profiles[json.dumps(consumer)] = profile
        self._events += 1
        self._world.event(media.ProfileChanged(object=fed.engine, profile=profile), n=self._events)
