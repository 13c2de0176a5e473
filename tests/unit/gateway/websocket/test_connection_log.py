"""Log lines of connections and requests, which hold nothing secret."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.protocol.frame_validation import RejectedRequest, validate
from gateway.protocol.session import Session
from gateway.websocket.connection_log import LOST, ConnectionLog, RequestLog, close_reason, socket_address, user_agent
from shared.errors import NotFound
from shared.protocol.protoo import Frame, error_frame

SESSION = Session("room", "gw.1", 1)


def transport(*, peername: Any = ("10.0.0.7", 5000), agent: str = "Firefox", handshake: Any = None) -> Any:
    socket = SimpleNamespace(get_extra_info=lambda _: peername)
    request = SimpleNamespace(headers={"User-Agent": agent}, path="/?roomId=room&resume=TOKEN")
    return SimpleNamespace(underlying_transport=socket, request=request, close_handshake=handshake)


def request(id_: int, data: str = '{"method":"pauseProducer"}') -> Frame:
    text = f'{{"request":true,"id":{id_},"method":"mediasoup-request","data":{data}}}'
    frame = validate(text, len(text), 1000)
    assert isinstance(frame, Frame)
    return frame


@pytest.mark.parametrize(
    ("peername", "address"),
    [(("10.0.0.7", 5000), "10.0.0.7:5000"), (("::1", 5000, 0, 0), "[::1]:5000"), ("/run/s", "/run/s"), (None, "")],
)
def test_an_address_is_that_of_the_socket(peername: Any, address: str) -> None:
    assert socket_address(transport(peername=peername)) == address


def test_a_user_agent_is_cut_to_100_characters() -> None:
    assert user_agent(transport(agent="x" * 300)) == "x" * 99 + "…"


@pytest.mark.parametrize(
    ("received", "sent", "recv_then_sent", "reason"),
    [
        ((1001, "going away"), (1001, ""), True, (1001, "going away")),
        ((4003, ""), (4003, "slow"), False, (4003, "slow")),
        (None, (4001, "unknown"), False, (4001, "unknown")),
        ((1000, None), None, True, (1000, "")),
        (None, None, False, (LOST, "")),
    ],
)
def test_a_close_reason_is_that_of_the_end_that_closed_first(
    received: Any, sent: Any, recv_then_sent: bool, reason: tuple[int, str]
) -> None:
    def info(pair: Any) -> Any:
        return None if pair is None else SimpleNamespace(code=pair[0], reason=pair[1])

    handshake = SimpleNamespace(recv=info(received), sent=info(sent), recv_then_sent=recv_then_sent)
    assert close_reason(transport(handshake=handshake)) == reason
    assert close_reason(transport(handshake=None)) == (LOST, "")


def test_opening_and_closing_are_one_line_each() -> None:
    with capture_logs() as lines:
        log = ConnectionLog()
        log.opened(SESSION, "alice", transport())
        log.closed(SESSION, "alice", transport(), 1.23456, 10, 20)
    about = {"room": "room", "peer": "alice", "session": "gw.1", "connection": 1, "part": "connection"}
    assert [{name: line[name] for name in line if name not in about} for line in lines] == [
        {
            "event": "connection.opened",
            "log_level": "info",
            "address": "10.0.0.7:5000",
            "resumable": False,
            "user_agent": "Firefox",
        },
        {
            "event": "connection.closed",
            "log_level": "info",
            "code": LOST,
            "reason": "",
            "seconds": 1.235,
            "bytes_in": 10,
            "bytes_out": 20,
        },
    ]
    assert all(line.items() >= about.items() for line in lines)
    assert "TOKEN" not in repr(lines)


def test_requests_are_logged_when_they_are_answered() -> None:
    with capture_logs() as lines:
        requests = ConnectionLog().requests(SESSION, "alice")
        assert requests is not None
        requests.received(request(1))
        requests.received(request(2, "null"))
        requests.received(RejectedRequest(3, 429, "too many"))
        requests.written(b'{"notification":true,"method":"m","data":{}}')
        requests.written(b'{"response":true,"id":1,"ok":true,"data":{}}')
        requests.written(b'{"seq":5,"ack":7,' + error_frame(2, NotFound("id: none"))[1:])
        requests.answered(3, 429)
        requests.written(b'{"response":true,"id":9,"ok":true,"data":{}}')
    assert [(line["event"], line["method"], line["code"]) for line in lines] == [
        ("request.answered", "pauseProducer", 200),
        ("request.answered", "mediasoup-request", 404),
        ("request.answered", "", 429),
    ]
    assert {line["log_level"] for line in lines} == {"debug"}
    assert all(line["seconds"] >= 0 for line in lines)


@pytest.mark.parametrize(("level", "requests"), [(logging.DEBUG, True), (logging.INFO, False)])
def test_requests_are_logged_only_at_level_debug(level: int, requests: bool) -> None:
    log = ConnectionLog()
    log._log = SimpleNamespace(is_enabled_for=lambda asked: asked >= level)
    assert isinstance(log.requests(SESSION, "alice"), RequestLog) is requests


def test_connection_log_above_level_info_reads_nothing() -> None:
    read: list[str] = []

    class Untouched:
        def __getattr__(self, name: str) -> None:
            read.append(name)

    lines: list[str] = []
    log = ConnectionLog()
    log._log = SimpleNamespace(
        is_enabled_for=lambda asked: asked >= logging.WARNING, info=lambda event, **_: lines.append(event)
    )
    log.opened(SESSION, "alice", Untouched())  # type: ignore[arg-type]
    log.closed(SESSION, "alice", Untouched(), 1, 2, 3)  # type: ignore[arg-type]
    assert (read, lines) == ([], [])
