"""`plenary rooms`, `plenary peers` and `plenary api`: commands that use the server API."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table

from plenary.commands.api_client import ApiClient, ApiError, path
from shared.secrets import SecretFileError, read_secret

PAGE: Final = 1000

console = Console(soft_wrap=True)
rooms = typer.Typer(help="Lists, creates and closes rooms, through a gateway's server API.", no_args_is_help=True)
peers = typer.Typer(help="Lists and closes peers, through a gateway's server API.", no_args_is_help=True)

Url: TypeAlias = Annotated[
    str, typer.Option("--api-url", envvar="PLENARY_API_URL", help="Address of a gateway's server API.")
]
Key: TypeAlias = Annotated[
    str,
    typer.Option(
        "--api-key", envvar="PLENARY_API_KEY", help="The API's key; or PLENARY_API_KEY_FILE.", show_default=False
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the API's answer as it is.")]
Room: TypeAlias = Annotated[str, typer.Argument(help="The room's name.")]
Peer: TypeAlias = Annotated[str, typer.Argument(help="The peer's name.")]
AppData: TypeAlias = Annotated[
    str | None, typer.Option("--app-data", help="JSON to send as appData.", show_default=False)
]
URL: Final = "http://127.0.0.1:8081"


def add_to(app: typer.Typer) -> None:
    app.add_typer(rooms, name="rooms")
    app.add_typer(peers, name="peers")
    app.command(name="api")(api)


# --- rooms ----------------------------------------------------------------------------------------------------


@rooms.command("list")
def list_rooms(url: Url = URL, key: Key = "", as_json: AsJson = False) -> None:
    """Lists all rooms."""
    names = [room["name"] for page in _pages(url, key) for room in page["rooms"]]
    if as_json:
        _print_json(names)
    else:
        _print(f"Rooms ({len(names)})", ["name"], [[name] for name in sorted(names)])


def _pages(url: str, key: str) -> Iterator[Any]:
    after = ""
    while True:
        page = _ask(url, key, "GET", f"/v1/rooms?limit={PAGE}&after={quote(after, safe='')}")
        yield page
        if page["next"] is None:
            return
        after = page["next"]


@rooms.command("show")
def show_room(room: Room, url: Url = URL, key: Key = "", as_json: AsJson = False) -> None:
    """Shows a room and its peers."""
    _print_room(_ask(url, key, "GET", path("rooms", room)), as_json)


@rooms.command("create")
def create_room(
    room: Room,
    max_peers: Annotated[
        int | None, typer.Option(help="Peers that may be in the room at once.", show_default=False)
    ] = None,
    idle_seconds: Annotated[int, typer.Option(help="Seconds that the room stays without peers.")] = 300,
    codecs: Annotated[
        str | None, typer.Option(help="JSON list of codecs, best first; see the API.", show_default=False)
    ] = None,
    app_data: AppData = None,
    url: Url = URL,
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Creates a room, which stays for `--idle-seconds` without peers."""
    body: dict[str, Any] = {"idleSeconds": idle_seconds} | _app_data(app_data)
    if max_peers is not None:
        body["limits"] = {"peers": max_peers}
    if codecs is not None:
        body["codecs"] = _parse(codecs, "--codecs")
    _print_room(_ask(url, key, "PUT", path("rooms", room), body), as_json)


@rooms.command("close")
def close_room(room: Room, app_data: AppData = None, url: Url = URL, key: Key = "") -> None:
    """Removes all peers from a room and ends it."""
    _ask(url, key, "DELETE", path("rooms", room), _app_data(app_data))
    console.print("closed")


@rooms.command("message")
def message_room(
    room: Room,
    data: Annotated[str, typer.Argument(help="JSON; what is none is sent as text.")],
    url: Url = URL,
    key: Key = "",
) -> None:
    """Sends a message to all peers of a room."""
    _ask(url, key, "POST", path("rooms", room, "messages"), {"data": _json_or_text(data)})
    console.print("sent")


# --- peers ----------------------------------------------------------------------------------------------------


@peers.command("list")
def list_peers(room: Room, url: Url = URL, key: Key = "", as_json: AsJson = False) -> None:
    """Lists the peers of a room."""
    found = _ask(url, key, "GET", path("rooms", room))["peers"]
    if as_json:
        _print_json(found)
    else:
        _print_peers(found)


@peers.command("show")
def show_peer(room: Room, peer: Peer, url: Url = URL, key: Key = "", as_json: AsJson = False) -> None:
    """Shows a peer with its transports, producers and consumers."""
    view = _ask(url, key, "GET", path("rooms", room, "peers", peer))
    if as_json:
        _print_json(view)
        return
    spy = ", a spy" if view["spy"] else ""
    console.print(f"{view['name']} at {view['gateway']}{spy}", markup=False)
    for noun in ("transports", "producers", "consumers"):
        entries = [{name: value for name, value in entry.items() if name != "appData"} for entry in view[noun]]
        headings = list(entries[0]) if entries else ["id"]
        _print(f"{noun.capitalize()} ({len(entries)})", headings, [list(entry.values()) for entry in entries])


@peers.command("close")
def close_peer(room: Room, peer: Peer, app_data: AppData = None, url: Url = URL, key: Key = "") -> None:
    """Removes a peer from its room."""
    _ask(url, key, "DELETE", path("rooms", room, "peers", peer), _app_data(app_data))
    console.print("closed")


@peers.command("message")
def message_peer(
    room: Room,
    peer: Peer,
    data: Annotated[str, typer.Argument(help="JSON; what is none is sent as text.")],
    url: Url = URL,
    key: Key = "",
) -> None:
    """Sends a message to one peer."""
    _ask(url, key, "POST", path("rooms", room, "peers", peer, "messages"), {"data": _json_or_text(data)})
    console.print("sent")


# --- any request ----------------------------------------------------------------------------------------------


def api(
    method: Annotated[str, typer.Argument(help="GET, PUT, POST or DELETE.")],
    path: Annotated[str, typer.Argument(help="Like /v1/rooms/salon/peers/alice/producers/7/pause.")],
    body: Annotated[str | None, typer.Argument(help="JSON body of the request, if it needs one.")] = None,
    url: Url = URL,
    key: Key = "",
) -> None:
    """Sends any request to the server API and prints the answer. The API lists its requests at /v1/."""
    target = path if path.startswith("/") else f"/{path}"
    _print_json(_ask(url, key, method.upper(), target, None if body is None else _parse(body, "BODY")))


# --- asking and printing --------------------------------------------------------------------------------------


def _ask(url: str, key: str, method: str, path: str, body: Any = None) -> Any:
    try:
        return ApiClient(url, key or read_secret("api_key", os.environ) or "").ask(method, path, body)
    except (ApiError, SecretFileError) as why:
        typer.echo(f"plenary: {why}", err=True)
        raise typer.Exit(1) from None


def _parse(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as broken:
        raise typer.BadParameter(f"{option}: not valid JSON ({broken})") from None


def _app_data(text: str | None) -> dict[str, Any]:
    return {} if text is None else {"appData": _parse(text, "--app-data")}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _print_json(answer: Any) -> None:
    json.dump(answer, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def _print_room(view: Any, as_json: bool) -> None:
    if as_json:
        _print_json(view)
        return
    limits = {name: value for name, value in view["limits"].items() if value is not None}
    console.print(view["name"], markup=False, style="bold")
    lines = {
        "media node": view["mediaNode"] or "none yet",
        "connections": view["connections"],
        "codecs": ", ".join(view["codecs"]),
        "limits": ", ".join(f"{name} {value}" for name, value in limits.items()) or "the cluster's",
    }
    for name, value in lines.items():
        console.print(f"  {name}: {value}", markup=False)
    _print_peers(view["peers"])


def _print_peers(found: Sequence[Any]) -> None:
    headings = ["name", "spy", "transports", "producers"]
    _print(f"Peers ({len(found)})", headings, [[peer[heading] for heading in headings] for peer in found])


def _print(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _cell(value: Any) -> str:
    """Formats a value, escaped: clients choose names, which rich must not take for markup."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value).replace("[", r"\[")
