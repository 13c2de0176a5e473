"""The application's server, calling rooms through a gateway's server API."""

import json
from typing import Any

from shared.protocol import bus
from tests.unit.roomworker.harness_client import GATEWAY
from tests.unit.roomworker.payloads import Json
from tests.unit.roomworker.room_harness import RoomHarness

OK = 200


class Backend:
    """Numbers its calls as a gateway does. Without a `key` each call gets a key of its own."""

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
        """The answer to a call that succeeds."""
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
