"""The check at the end of a build, with a transport in Python in place of the engine's."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medianode.toolchain import handshake
from medianode.toolchain.errors import EngineUnavailable
from tests.support.webrtc_transport import PASSWORD, USERNAME, Transport


class FakeEngine:
    """An engine whose transport is at `port`. It has ended if `ended` says how."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.port = 0
        self.ended = ""
        self.asked: list[str] = []
        self.connected_to: dict[str, Any] = {}
        self.is_open = False

    def __call__(self, *_: object) -> "FakeEngine":
        return self

    def __enter__(self) -> "FakeEngine":
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def request(self, method: str, handler_id: str = "", body: Any = None) -> dict[str, Any]:
        if self.ended and self.connected_to:
            raise EngineUnavailable(self.ended)
        self.asked.append(method)
        if method == "WEBRTCTRANSPORT_CONNECT":
            self.connected_to = body[1]["dtls_parameters"]
        if method != "ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER":
            return {}
        return {
            "ice_parameters": {"username_fragment": USERNAME, "password": PASSWORD},
            "ice_candidates": [{"port": self.port}],
            "dtls_parameters": {
                "fingerprints": [
                    {"algorithm": "SHA1", "value": "00"},
                    {"algorithm": "SHA256", "value": self.transport.fingerprint},
                ]
            },
        }

    def wait_for(self, event: str, handler_id: str = "", **fields: object) -> dict[str, Any]:
        self.asked.append(f"{event} {fields}")
        return {}


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        yield listening


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    monkeypatch.setattr(handshake, "StartedEngine", fake)
    return fake


@pytest.fixture
def answering(engine: FakeEngine, udp: socket.socket) -> Iterator[FakeEngine]:
    """The engine with a transport that answers."""
    engine.port = udp.getsockname()[1]
    stopped = threading.Event()

    def answer() -> None:
        while not stopped.is_set():
            packet, sender = udp.recvfrom(65_536)
            for reply in engine.transport.answer(packet) if packet else []:
                udp.sendto(reply, sender)

    thread = threading.Thread(target=answer)
    thread.start()
    yield engine
    stopped.set()
    udp.sendto(b"", udp.getsockname())
    thread.join()


def check() -> None:
    handshake.check_handshake(Path("mediasoup-worker"), Path("fbs"))


def test_check_passes_when_client_and_engine_are_connected(answering: FakeEngine) -> None:
    check()
    assert answering.connected_to["role"] == "CLIENT"
    assert answering.asked[-1] == "WEBRTCTRANSPORT_DTLS_STATE_CHANGE {'dtls_state': 'CONNECTED'}"
    assert not answering.is_open


def test_engine_with_another_certificate_than_it_says_fails_the_check(answering: FakeEngine) -> None:
    answering.transport.fingerprint = "00:11"
    with pytest.raises(EngineUnavailable, match="has the fingerprint"):
        check()
    assert not answering.is_open


def test_engine_without_an_open_port_fails_the_check(engine: FakeEngine, udp: socket.socket) -> None:
    engine.port = udp.getsockname()[1]
    udp.close()
    with pytest.raises(EngineUnavailable, match="refused"):
        check()
    assert engine.asked[-1] == "WORKER_DUMP"


def test_engine_that_crashed_fails_the_check_with_its_signal(engine: FakeEngine, udp: socket.socket) -> None:
    engine.port = udp.getsockname()[1]
    udp.close()
    engine.ended = "mediasoup-worker was ended by signal 11"
    with pytest.raises(EngineUnavailable, match="ended by signal 11"):
        check()


def test_engine_that_answers_no_packet_fails_the_check(
    engine: FakeEngine, udp: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "_TIMEOUT", 0.1)
    engine.port = udp.getsockname()[1]
    with pytest.raises(EngineUnavailable, match="not connected within"):
        check()


def test_command_prints_why_no_client_could_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(binary: Path, schemas: Path) -> None:
        raise EngineUnavailable(f"{binary} with {schemas}: a reason")

    monkeypatch.setattr(handshake, "check_handshake", fail)
    monkeypatch.setattr("sys.argv", ["handshake", "/some/engine", "/some/fbs"])
    with pytest.raises(SystemExit, match="/some/engine with /some/fbs: a reason"):
        handshake.main()
