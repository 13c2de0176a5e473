"""The client without a socket: what it does with frames, and what it sends."""

import asyncio
from typing import Any

import orjson
import pytest

from loadtest.client.protoo import Ended, Hooks, ProtooClient, Refusal


class FakeConnection:
    """A connection that records what is written and whether it was dropped."""

    def __init__(self) -> None:
        self.greeted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.written: list[dict[str, Any]] = []
        self.dropped = False

    def write(self, body: bytes) -> None:
        self.written.append(orjson.loads(body))

    def drop(self) -> None:
        self.dropped = True

    def end(self, code: int, reason: str) -> None:
        self.dropped = True


class GreetedClient:
    """A client with a connection that is greeted."""

    def __init__(self, *, resumable: bool = False, hooks: Hooks | None = None, **options: Any) -> None:
        self.connection = FakeConnection()
        self.client = ProtooClient("ws://host", "room", "alice", resumable=resumable, hooks=hooks, **options)
        if resumable:
            token = {"resumed": False, "token": "t", "graceSeconds": 15}
            self.receive({"notification": True, "method": "session", "data": token})
        else:
            self.client._greet(self.connection)  # type: ignore[arg-type]

    def receive(self, frame: dict[str, Any]) -> None:
        self.client._received(self.connection, orjson.dumps(frame))  # type: ignore[arg-type]

    def notify(self, data: Any, **numbers: int) -> None:
        self.receive({**numbers, "notification": True, "method": "message", "data": data})


async def test_answers_come_in_the_order_of_notifications() -> None:
    came: list[Any] = []
    line = GreetedClient(hooks=Hooks(notified=lambda _, data: came.append(data)))
    line.client.post({}, lambda data, _: came.append(data))
    line.notify(1)
    line.receive({"response": True, "id": 1, "ok": True, "data": 2})
    line.notify(3)
    assert came == [1, 2, 3]
    assert line.client.in_flight == 0


async def test_error_answer_is_a_refusal() -> None:
    line = GreetedClient()
    answer = line.client.ask({})
    line.receive({"response": True, "id": 1, "errorCode": 404, "errorReason": "nothing there"})
    with pytest.raises(Refusal, match="404 nothing there"):
        await answer


async def test_end_of_the_session_fails_every_open_request_and_later_ones() -> None:
    failures: list[Refusal | Ended | None] = []
    line = GreetedClient()
    line.client.post({}, lambda _, failure: failures.append(failure))
    asked = line.client.ask({})
    await line.client.abort()
    assert isinstance(failures[0], Ended)
    with pytest.raises(Ended):
        await asked
    with pytest.raises(Ended):
        line.client.post({}, lambda *_: None)


@pytest.mark.parametrize("resumable", [False, True])
async def test_exception_in_a_callback_is_reported_and_keeps_the_connection(resumable: bool) -> None:
    failed: list[Exception] = []
    came: list[Any] = []

    def notified(_: str, data: Any) -> None:
        if data == "bad":
            raise KeyError(data)
        came.append(data)

    line = GreetedClient(resumable=resumable, hooks=Hooks(notified=notified, failed=failed.append))
    numbers = [{"seq": 1, "ack": 0}, {"seq": 2, "ack": 0}] if resumable else [{}, {}]
    line.notify("bad", **numbers[0])
    line.notify("good", **numbers[1])
    assert [type(failure) for failure in failed] == [KeyError]
    assert came == ["good"]
    assert not line.connection.dropped


async def test_exception_in_a_callback_without_a_hook_is_raised() -> None:
    def notified(_: str, data: Any) -> None:
        raise KeyError(data)

    line = GreetedClient(hooks=Hooks(notified=notified))
    with pytest.raises(KeyError):
        line.notify(1)


async def test_answer_to_no_open_request_is_a_violation() -> None:
    found: list[tuple[str, str]] = []
    line = GreetedClient(hooks=Hooks(violation=lambda kind, text: found.append((kind, text))))
    line.receive({"response": True, "id": 7, "ok": True, "data": {}})
    assert found == [("duplicated", "room/alice: answer to request 7, which is not open")]


async def test_answers_out_of_order_are_a_violation() -> None:
    found: list[str] = []
    line = GreetedClient(hooks=Hooks(violation=lambda kind, _: found.append(kind)))
    answers = [line.client.ask({}) for _ in range(2)]
    for id_ in (2, 1):
        line.receive({"response": True, "id": id_, "ok": True, "data": id_})
    assert found == ["reordered"]
    assert [await answer for answer in answers] == [1, 2]


@pytest.mark.parametrize("order", [("seq", "ack"), ("ack", "seq")])
async def test_session_numbers_are_taken_off_in_any_order_of_keys(order: tuple[str, str]) -> None:
    seen: list[bytes] = []
    line = GreetedClient(resumable=True, hooks=Hooks(frame=lambda body: bool(seen.append(body)) or True))
    values = {"seq": 1, "ack": 0}
    line.notify("x", **{name: values[name] for name in order})
    assert [orjson.loads(body) for body in seen] == [{"notification": True, "method": "message", "data": "x"}]
    assert line.client.ledger.seq == 1


async def test_gap_in_the_session_numbers_drops_the_connection() -> None:
    came: list[Any] = []
    line = GreetedClient(resumable=True, hooks=Hooks(notified=lambda _, data: came.append(data)))
    line.notify(1, seq=1, ack=0)
    line.notify(1, seq=1, ack=0)
    assert not line.connection.dropped
    line.notify(3, seq=3, ack=0)
    assert line.connection.dropped
    assert came == [1]
    assert (line.client.ledger.duplicates, line.client.ledger.gaps) == (1, 1)


async def test_frame_hook_takes_a_frame_or_leaves_it_to_the_client() -> None:
    came: list[Any] = []
    hooks = Hooks(frame=lambda body: b"mine" in body, notified=lambda _, data: came.append(data))
    line = GreetedClient(hooks=hooks)
    line.notify("mine")
    line.notify("yours")
    assert came == ["yours"]


async def test_encoded_frames_are_numbered_and_own_ids_are_kept_free() -> None:
    line = GreetedClient(resumable=True, first_id=100)
    line.client.send_encoded(b'{"request":true,"id":5,"method":"message","data":{}}')
    line.client.post({}, lambda *_: None)
    assert [(frame["cseq"], frame["id"]) for frame in line.connection.written] == [(1, 5), (2, 100)]
    assert line.client.ledger.unacknowledged == 2
