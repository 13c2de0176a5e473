"""`plenary rooms`, `peers`, `api`, against an API that says what a test wants."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from plenary import cli

ROOM = {
    "name": "salon",
    "connections": 2,
    "peers": [{"name": "[b]alice", "spy": False, "transports": 2, "producers": 1}],
    "mediaNode": "node-1",
    "codecs": ["opus", "VP8"],
    "limits": {"peers": 3, "transportsPerPeer": None},
}
PEER = {
    "name": "alice",
    "gateway": "gateway-1",
    "spy": False,
    "transports": [{"id": 1, "direction": "send", "connected": True, "appData": {}}],
    "producers": [],
    "consumers": [],
}


class Api:
    """Answers what `answers` has for a method and path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                api.asked.append((self.command, self.path, json.loads(body) if body else None))
                status, answer = api.answers.get(f"{self.command} {self.path}", (200, {}))
                if self.headers["Authorization"] != "Bearer secret":
                    status, answer = 401, {"code": 401, "reason": "no"}
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def run(self, *arguments: str) -> Result:
        environment = {"PLENARY_API_URL": self.url, "PLENARY_API_KEY": "secret", "COLUMNS": "120", "TERM": "dumb"}
        return CliRunner().invoke(cli.app, list(arguments), env=environment)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield api
    api.server.shutdown()
    api.server.server_close()
    thread.join()


def test_rooms_are_listed_over_all_pages(api: Api) -> None:
    api.answers["GET /v1/rooms?limit=1000&after="] = (200, {"rooms": [{"name": "b"}], "next": "b/ä"})
    api.answers["GET /v1/rooms?limit=1000&after=b%2F%C3%A4"] = (200, {"rooms": [{"name": "a"}], "next": None})
    assert json.loads(api.run("rooms", "list", "--json").output) == ["b", "a"]
    assert "Rooms (2)" in api.run("rooms", "list").output


def test_room_is_shown_as_it_is(api: Api) -> None:
    api.answers["GET /v1/rooms/salon"] = (200, ROOM)
    said = api.run("rooms", "show", "salon").output
    for part in ("salon", "node-1", "opus, VP8", "peers 3", "[b]alice"):
        assert part in said
    assert json.loads(api.run("rooms", "show", "salon", "--json").output) == ROOM
    assert "[b]alice" in api.run("peers", "list", "salon").output


def test_peer_is_shown_with_its_media_objects(api: Api) -> None:
    api.answers["GET /v1/rooms/a%2Fb/peers/%C3%A4"] = (200, PEER)
    said = api.run("peers", "show", "a/b", "ä").output
    for part in ("alice at gateway-1", "Transports (1)", "send", "Producers (0)"):
        assert part in said


def test_room_is_created_with_the_typed_options(api: Api) -> None:
    api.answers["PUT /v1/rooms/salon"] = (200, ROOM)
    codecs = '[{"kind": "audio", "name": "opus", "clockRate": 48000}]'
    assert api.run("rooms", "create", "salon").exit_code == 0
    assert api.run(
        *("rooms", "create", "salon", "--max-peers", "3", "--idle-seconds", "9"),
        *("--codecs", codecs, "--app-data", '{"a": 1}'),
    ).exit_code == 0  # fmt: skip
    full = {"idleSeconds": 9, "limits": {"peers": 3}, "codecs": json.loads(codecs), "appData": {"a": 1}}
    assert [body for _, _, body in api.asked] == [{"idleSeconds": 300}, full]


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body"),
    [
        ("rooms close salon", "DELETE", "/v1/rooms/salon", {}),
        ("rooms close salon --app-data 1", "DELETE", "/v1/rooms/salon", {"appData": 1}),
        ("rooms message salon hello", "POST", "/v1/rooms/salon/messages", {"data": "hello"}),
        ("peers close salon bob", "DELETE", "/v1/rooms/salon/peers/bob", {}),
        ("peers message salon bob [1]", "POST", "/v1/rooms/salon/peers/bob/messages", {"data": [1]}),
        ("api post /v1/x/pause", "POST", "/v1/x/pause", None),
        ('api PUT v1/x {"profile":"low"}', "PUT", "/v1/x", {"profile": "low"}),
    ],
)
def test_other_commands_send_the_typed_request(api: Api, arguments: str, method: str, path: str, body: Any) -> None:
    assert api.run(*arguments.split()).exit_code == 0
    assert api.asked == [(method, path, body)]


def test_refusal_of_the_api_is_printed_as_a_sentence(api: Api) -> None:
    api.answers["GET /v1/rooms/salon"] = (404, {"code": 404, "reason": "room: no room 'salon'"})
    result = api.run("rooms", "show", "salon")
    assert (result.exit_code, result.output) == (1, "plenary: room: no room 'salon' (404)\n")
    api.answers["GET /v1/rooms/salon"] = (502, b"<html>")
    assert "answers 502: is this Plenary's API?" in api.run("rooms", "show", "salon").output
    api.answers["GET /v1/rooms/salon"] = (200, b"<html>")
    assert "is no Plenary API" in api.run("rooms", "show", "salon").output


def test_wrong_key_and_wrong_address_are_named(api: Api) -> None:
    assert "(--api-key, PLENARY_API_KEY)" in api.run("rooms", "list", "--api-key", "wrong").output
    assert "(--api-url, PLENARY_API_URL)" in api.run("rooms", "list", "--api-url", "http://127.0.0.1:1").output
    assert "expected the API's address" in api.run("rooms", "list", "--api-url", "localhost").output


def test_invalid_json_is_reported_without_a_request(api: Api) -> None:
    assert "--app-data: not valid JSON" in api.run("rooms", "close", "salon", "--app-data", "{").output
    assert api.asked == []
