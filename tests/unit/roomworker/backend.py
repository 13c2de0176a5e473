"""The application's server, calling rooms through a gateway's server API."""

import json
from typing import Any

from shared.protocol import bus
from tests.unit.roomworker.harness_client import GATEWAY
from tests.unit.roomworker.payloads import Json
from tests.unit.roomworker.room_harness import RoomHarness

OK = 200


class Backend:
    """Numbers its calls as a gateway does. Without a `key` each call is another."""

    def __init__(self, harness: RoomHarness) -> None:
        self.harness = harness
        self.calls: list[bus.Call] = []

    # --- when -------------------------------------------------------------------------------------------------

    def item(self, do: str, *, key: str = "", **fields: Any) -> bus.Call:
        return self.raw_item(json.dumps({"do": do, **fields}), key=key)

    def raw_item(self, action: str, *, key: str = "") -> bus.Call:
        n = len(self.calls) + 1
        item = bus.Call(self.harness.name, key or f"key{n}", GATEWAY, n, action.encode())
        self.calls.append(item)
        return item

    def send(self, item: bus.Call) -> int:
        self.harness.receive(item)
        return item.n

    def raw(self, action: str, *, key: str = "") -> tuple[int, Any]:
        """The answer to an action written out as JSON: its code, and its body or the reason."""
        return self.answer(self.send(self.raw_item(action, key=key)))

    def call(self, do: str, *, key: str = "", **fields: Any) -> tuple[int, Any]:
        return self.answer(self.send(self.item(do, key=key, **fields)))

    def do(self, do: str, **fields: Any) -> Json:
        """The answer to a call that is not refused."""
        code, body = self.call(do, **fields)
        assert code == OK, body
        assert isinstance(body, dict)
        return body

    # --- then -------------------------------------------------------------------------------------------------

    def answers(self, n: int) -> list[tuple[int, Any]]:
        return [
            (answer.code, json.loads(answer.body) if answer.code == OK else answer.body.decode())
            for gateway, answer in self.harness.answers
            if gateway == GATEWAY and answer.n == n
        ]

    def answer(self, n: int) -> tuple[int, Any]:
        (answer,) = self.answers(n)
        return answer


class Call:
    """alice sends 10 over transport 1, bob receives it over transport 2, carol could."""

    def __init__(self, kind: str = "audio", harness: RoomHarness | None = None) -> None:
        self.harness = harness or RoomHarness()
        self.alice = self.harness.sending("alice")
        self.bob = self.harness.receiving("bob")
        self.carol = self.harness.receiving("carol")
        self.consumer = self.alice.produce(10, kind)
        assert self.bob.enable(self.consumer)["ok"]
        self.backend = Backend(self.harness)
        self.clear_sent()

    def clear_sent(self) -> None:
        self.harness.orders.clear()
        for it in (self.alice, self.bob, self.carol):
            it.clear_sent()

    @property
    def source(self) -> str:
        """alice's producer on the media node."""
        return self.harness.room.peers["alice"].producers[10].engine

    @property
    def fed(self) -> str:
        """bob's consumer on the media node."""
        return self.harness.room.peers["bob"].consumers[self.consumer].engine

    @property
    def heard(self) -> dict[str, list[str]]:
        """The notifications since `clear_sent`, of those who heard any."""
        everybody = (self.alice, self.bob, self.carol)
        return {it.peer: it.methods for it in everybody if it.methods}

    @property
    def ordered(self) -> list[tuple[type, str]]:
        return [(type(order), order.object) for order in self.harness.orders]
