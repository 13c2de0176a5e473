"""The same operations on our room core: one room in a `RoomHarness`, with a media node that answers at once."""

import json
from copy import deepcopy
from typing import Any, cast

from shared.protocol import bus, client, media
from shared.protocol.rtp import EffectiveProfile
from tests.differential.media import Engine
from tests.unit.roomworker.harness_client import GATEWAY, Client
from tests.unit.roomworker.room_harness import RoomHarness

Json = dict[str, Any]

NO_SUCH_CONSUMER = 99999


class Media(RoomHarness):
    """A room whose media node answers at once."""

    def __init__(self) -> None:
        self.engine = Engine()
        super().__init__()

    def answer(self, result: media.AnyResult | None = None, at: int = 0) -> media.AnyRequest:
        return super().answer(result or self.engine.result(self.pending_requests[at].request), at)


class Connection:
    """One peer's connection, and the consumers it was told of since it joined."""

    def __init__(self, harness: Media, name: str) -> None:
        self.client: Client = harness.connected(name)
        self.consumers: list[int] = []
        self.profiles: dict[str, str] = {}
        self.closed = False

    def consumer(self, n: int) -> int:
        return self.consumers[n] if n < len(self.consumers) else NO_SUCH_CONSUMER

    def resolved(self, message: Any) -> Any:
        if isinstance(message, dict) and isinstance(message.get("id"), dict) and "$consumer" in message["id"]:
            return {**message, "id": self.consumer(message["id"]["$consumer"])}
        return message

    def take(self) -> list[Json]:
        frames = [_frame(frame) for frame in self.client.frames]
        self.closed = self.client.close_code is not None
        self.client.clear_sent()
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


class RoomCore:
    """One room through one sequence."""

    def __init__(self) -> None:
        self._harness = Media()
        self._connections: dict[str, Connection] = {}
        self._calls = 0
        self._events = 0

    def perform(self, operations: list[Json]) -> list[Json]:
        """{frames, engine, uncaught} for each operation; frames by peer, in order."""
        return [self._perform(operation) for operation in operations]

    def _perform(self, operation: Json) -> Json:
        engine = self._harness.engine
        engine.refusing = operation.get("refuse", False)
        self._start(operation)
        for order in self._harness.orders:
            engine.obey(order)
        self._harness.orders.clear()
        frames = {name: taken for name, connection in self._connections.items() if (taken := connection.take())}
        self._connections = {name: it for name, it in self._connections.items() if not it.closed}
        uncaught = [repr(defect) for defect in self._harness.defects]
        self._harness.defects.clear()
        return {"frames": frames, "engine": deepcopy(engine.picture()), "uncaught": uncaught}

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
                self._connections[operation["peer"]] = Connection(self._harness, operation["peer"])
            case "profile":
                self._change_profile(connection, connection.consumer(operation["consumer"]), operation["profile"])
            case _:
                self._call(connection, operation)

    def _connection(self, peer: str) -> Connection:
        if peer not in self._connections:
            self._connections[peer] = Connection(self._harness, peer)
        return self._connections[peer]

    def _send(self, connection: Connection, method: str, message: Any, *, asks: bool) -> None:
        it = connection.client
        message = connection.resolved(message)
        if isinstance(message, dict):
            self._harness.engine.id_ = message.get("id")
            self._harness.engine.profile = connection.profiles.get(json.dumps(message.get("id")), "none")
        it.ids += 1
        item = it.input(method, it.ids if asks else None, json.dumps(message).encode())
        self._harness.receive(item, it.gateway)

    def _call(self, connection: Connection, operation: Json) -> None:
        """A server-side action, which the oracle's application carries out on its objects."""
        action = {name: value for name, value in operation.items() if name != "consumer"}
        if "consumer" in operation:
            action["id"] = connection.consumer(operation["consumer"])
        if action["do"] == "setConsumerPreferredProfile":
            action["do"] = "setConsumerProfile"
        if action["do"] == "closeRoom":
            del action["peer"]
        self._calls += 1
        body = json.dumps(action).encode()
        self._harness.receive(bus.Call(self._harness.name, f"key{self._calls}", GATEWAY, self._calls, body), GATEWAY)

    def _change_profile(self, connection: Connection, consumer: int, profile: str) -> None:
        peer = self._harness.room.peers.get(connection.client.peer)
        fed = peer.consumers.get(consumer) if peer else None
        if fed is None or not fed.enabled:
            return
        connection.profiles[json.dumps(consumer)] = profile
        self._events += 1
        changed = media.ProfileChanged(object=fed.engine, profile=cast("EffectiveProfile", profile))
        self._harness.event(changed, n=self._events)
