"""A client of a room under test: numbers its frames as a gateway does, and reads what its session was sent."""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from roomworker.core.room import Room
from shared.protocol import bus, client
from tests.unit.roomworker.payloads import OPUS, VP8, Json

GATEWAY = "gateway"


@dataclass
class Output:
    """One output of a session, as the stream keeps it."""

    out: int
    body: bytes
    close: int

    @property
    def frame(self) -> Json:
        frame: Json = json.loads(self.body)
        return frame


class Harness(Protocol):
    """The part of `RoomHarness` that its clients use."""

    name: str
    stream: dict[str, list[Output]]

    @property
    def room(self) -> Room: ...

    links: list[tuple[str, bus.Link]]

    def receive(self, item: bus.SessionItem | bus.Resume | bus.ConnectionLost, origin: str) -> object: ...


@dataclass(eq=False)
class Client:
    """A client behind a gateway that numbers and publishes its frames."""

    harness: Harness
    peer: str
    session: str
    connection: int
    accepted: int = 0
    gateway: str = GATEWAY
    n: int = 0
    ids: int = 0
    items: list[bus.SessionItem] = field(default_factory=list)
    token: str = ""

    def __post_init__(self) -> None:
        self.accepted = self.accepted or self.connection

    # --- frames and items -------------------------------------------------------------------------------------

    def connect_item(self) -> bus.Connect:
        item = bus.Connect(self.harness.name, self.session, self.connection, self.peer, self.accepted, self.token)
        self.items.append(item)
        return item

    def input(self, method: str, id_: int | None, data: bytes) -> bus.Input:
        self.n += 1
        item = bus.Input(self.harness.name, self.session, self.connection, self.n, method, id_, data)
        self.items.append(item)
        return item

    def request_item(self, method: str, **data: Any) -> bus.Input:
        self.ids += 1
        body = json.dumps({"method": method, **data}).encode()
        return self.input(client.REQUEST, self.ids, body)

    def notification_item(self, method: str, **data: Any) -> bus.Input:
        body = json.dumps({"method": method, "notification": True, **data}).encode()
        return self.input(client.NOTIFICATION, None, body)

    def disconnect_item(self) -> bus.Disconnect:
        self.n += 1
        item = bus.Disconnect(self.harness.name, self.session, self.connection, self.n)
        self.items.append(item)
        return item

    # --- when -------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.harness.receive(self.connect_item(), self.gateway)

    def disconnect(self) -> None:
        self.harness.receive(self.disconnect_item(), self.gateway)

    def request(self, method: str, **data: Any) -> int:
        """Sends a request and returns its id."""
        item = self.request_item(method, **data)
        self.harness.receive(item, self.gateway)
        assert item.id is not None
        return item.id

    def ask(self, method: str, **data: Any) -> Json:
        """Sends a request and returns its answer."""
        answer = self.answer(self.request(method, **data))
        assert answer is not None
        return answer

    def notify(self, method: str, **data: Any) -> None:
        self.harness.receive(self.notification_item(method, **data), self.gateway)

    def notify_asking(self, method: str, **data: Any) -> Json:
        """Sends a notification as a request, as older clients do, and returns its answer."""
        self.ids += 1
        body = json.dumps({"method": method, "notification": True, **data}).encode()
        item = self.input(client.NOTIFICATION, self.ids, body)
        self.harness.receive(item, self.gateway)
        answer = self.answer(self.ids)
        assert answer is not None
        return answer

    def produce(self, id_: int = 10, kind: str = "audio", **more: Any) -> int:
        """Sends a stream over transport 1 and returns the id of its consumers."""
        parameters = OPUS if kind == "audio" else VP8
        message = {"id": id_, "kind": kind, "transportId": 1, "rtpParameters": parameters, **more}
        answer = self.ask("createProducer", **message)
        assert answer["ok"], answer
        return self.harness.room.peers[self.peer].producers[id_].number

    def enable(self, consumer: int, **more: Any) -> Json:
        return self.ask("enableConsumer", id=consumer, transportId=2, **more)

    # --- then -------------------------------------------------------------------------------------------------

    @property
    def sent(self) -> list[Output]:
        return self.harness.stream.get(self.session, [])

    @property
    def frames(self) -> list[Json]:
        return [sent.frame for sent in self.sent if not sent.close]

    @property
    def close_code(self) -> int | None:
        """The close code of the socket; None: it is open."""
        codes = [sent.close for sent in self.sent if sent.close]
        return codes[-1] if codes else None

    def answers(self, id_: int) -> list[Json]:
        return [frame for frame in self.frames if frame.get("response") and frame["id"] == id_]

    def answer(self, id_: int) -> Json | None:
        answers = self.answers(id_)
        assert len(answers) <= 1, "answered twice"
        return answers[0] if answers else None

    @property
    def notifications(self) -> list[Json]:
        return [frame["data"] for frame in self.frames if frame.get("notification")]

    @property
    def methods(self) -> list[str]:
        return [notification["method"] for notification in self.notifications]

    def notifications_of(self, method: str) -> list[Json]:
        """The notifications of that method, without the fields that all notifications have."""
        return [
            {key: value for key, value in data.items() if key not in ("method", "target", "notification")}
            for data in self.notifications
            if data["method"] == method
        ]

    def clear_sent(self) -> None:
        """Forgets the outputs so far."""
        self.sent.clear()
