"""Every message of the protocol has a struct, a handler, and a place in the verification matrix with a test.

The facts of the protocol stand in docs/reference/protocol_messages.toml. Where the original specification stands
beside the checkout, both are compared.
"""

import ast
import importlib
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import fields

from shared.errors import BadPayload
from shared.protocol import client

ROOT: Final = Path(__file__).parents[2]
FACTS: Final = tomllib.loads((ROOT / "docs" / "reference" / "protocol_messages.toml").read_text())
SPECIFICATION: Final = ROOT.parent / "shared" / "protocol" / "mediasoup-protocol.md"
ENVELOPE: Final = {"method", "target", "notification"}


@dataclass(frozen=True)
class Facts:
    """One message: whether it is a request, its fields, and those of its answer."""

    name: str
    request: bool
    fields: frozenset[str]
    response: frozenset[str] | None = None


def facts(direction: str) -> list[Facts]:
    """The messages of a direction, `client` or `server` being the sender, as the repository states them."""
    return [
        Facts(
            message["name"],
            message["kind"] == "request",
            frozenset(message["fields"]),
            frozenset(message["response"]) if "response" in message else None,
        )
        for message in FACTS[direction]
    ]


FROM_CLIENT: Final = facts("client")
TO_CLIENT: Final = facts("server")
RECEIVED: Final = {struct.__struct_config__.tag: struct for struct in client.FromClient.__subclasses__()}
SENT: Final = {struct.__struct_config__.tag: struct for struct in client.ToClient.__subclasses__()}

from_client = pytest.mark.parametrize("message", FROM_CLIENT, ids=lambda message: message.name)
to_client = pytest.mark.parametrize("message", TO_CLIENT, ids=lambda message: message.name)
every_name = pytest.mark.parametrize("name", [message.name for message in (*FROM_CLIENT, *TO_CLIENT)])


def names(struct: type[client.FromClient | client.ToClient]) -> set[str]:
    return {field.encode_name for field in fields(struct)}


# --- the original specification -----------------------------------------------------------------------------------


def chapters(text: str) -> list[Facts]:
    """The messages of one direction's part of the original; a response without an example is empty."""
    return [chapter(part) for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]]


def chapter(text: str) -> Facts:
    name, _, body = text.partition("\n")
    asked, _, answered = body.partition("\nResponse:")
    request = "\nRequest:" in body
    return Facts(name, request, example(asked) - ENVELOPE, example(answered) if request else None)


def example(text: str) -> frozenset[str]:
    """The top-level fields of the example in a text."""
    found = re.search(r"```js\n(.*?)```", text, re.DOTALL)
    return frozenset(re.findall(r"^  (\w+)\s*:", found[1], re.MULTILINE)) if found else frozenset()


def test_stated_facts_are_those_of_the_original_specification() -> None:
    if not SPECIFICATION.exists():
        pytest.skip("the original specification is not beside the checkout")
    _, from_client, to_client = re.split(r"^## From .*$", SPECIFICATION.read_text(), flags=re.MULTILINE)
    mentioned_only = {message["name"] for message in FACTS["server"] if message.get("mentioned_only")}

    assert chapters(from_client) == FROM_CLIENT
    assert chapters(to_client) == [message for message in TO_CLIENT if message.name not in mentioned_only]
    assert all(name in from_client for name in mentioned_only)


def test_examples_of_the_original_specification_are_read_with_their_answers() -> None:
    text = "### a\n\nRequest:\n```js\n{\n  method: 'a',\n  id: 1\n}\n```\nResponse:\n```js\n{\n  x: {}\n}\n```\n"
    assert chapters(text) == [Facts("a", True, frozenset({"id"}), frozenset({"x"}))]


def test_the_protocol_has_22_messages_from_and_16_to_clients() -> None:
    assert (len(FROM_CLIENT), len(TO_CLIENT)) == (22, 16)


# --- from client to server ----------------------------------------------------------------------------------------


def rejection(decode: Callable[[bytes], object], message: str) -> str:
    """The reason why a message without any field is rejected; empty if it is accepted."""
    try:
        decode(f'{{"method":"{message}"}}'.encode())
    except BadPayload as refused:
        return refused.reason
    return ""


@from_client
def test_a_clients_message_is_decoded_as_the_request_or_notification_it_is(message: Facts) -> None:
    decoders = (client.decode_request, client.decode_notification)
    decode, other = decoders if message.request else reversed(decoders)

    assert re.fullmatch(r"|\w+: missing", rejection(decode, message.name))
    assert rejection(other, message.name).startswith("method: unknown method")


@from_client
def test_a_clients_message_has_the_fields_of_the_specification(message: Facts) -> None:
    assert message.fields <= names(RECEIVED[message.name])


def handlers() -> dict[str, str]:
    """`module.function` by message, read from the cases of dispatch.py, which answers one of them itself."""
    found = {}
    for case in ast.walk(ast.parse((ROOT / "roomworker" / "core" / "dispatch.py").read_text())):
        match case:
            case ast.match_case(
                pattern=ast.MatchClass(cls=ast.Attribute(attr=struct)),
                body=[ast.Return(value=ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=function)))],
            ):
                name = struct[0].lower() + struct[1:]
                found[name] = "dispatch.handle" if module == "client" else f"{module}.{function}"
    return found


@from_client
def test_a_clients_message_has_a_handler(message: Facts) -> None:
    handler = handlers()[message.name]
    assert f"`{handler}`" in TABLE[message.name][0]


def test_every_handler_is_for_a_specified_message() -> None:
    assert set(RECEIVED) == {message.name for message in FROM_CLIENT}
    assert set(handlers()) == set(RECEIVED) | {"message"}


# --- from server to client ----------------------------------------------------------------------------------------


@to_client
def test_a_notification_has_the_fields_of_the_specification(message: Facts) -> None:
    assert message.fields <= names(SENT[message.name])


def test_there_are_no_other_notifications() -> None:
    assert set(SENT) == {message.name for message in TO_CLIENT}


def made_by_the_room_worker() -> Iterator[str]:
    """Returns the methods that are called as `client.X(…)`, or chosen to be: `client.X if … else client.Y`."""
    for module in (ROOT / "roomworker").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(func=made):
                    makers = [made]
                case ast.IfExp(body=one, orelse=other):
                    makers = [one, other]
                case _:
                    continue
            for maker in makers:
                if (
                    isinstance(maker, ast.Attribute)
                    and isinstance(maker.value, ast.Name)
                    and maker.value.id == "client"
                ):
                    yield maker.attr


def test_every_notification_is_sent_by_somebody() -> None:
    assert {struct.__name__ for struct in SENT.values()} <= set(made_by_the_room_worker())


# --- the verification matrix --------------------------------------------------------------------------------------


def table() -> dict[str, tuple[str, str]]:
    """message → (where it is handled or sent, its tests), as the rows have it."""
    text = (ROOT / "docs" / "contributing" / "verification.md").read_text()
    section = text.partition("\n## Messages\n")[2].partition("\n## ")[0]
    rows: dict[str, tuple[str, str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 3:
            for message in re.findall(r"`(\w+)`", cells[0]):
                assert message not in rows, f"{message} twice"
                rows[message] = (cells[1], cells[2])
    return rows


TABLE: Final = table()


@every_name
def test_a_message_is_in_the_table_with_the_functions_that_carry_it_out(name: str) -> None:
    where, _ = TABLE[name]
    functions = re.findall(r"`(\w+)\.(\w+)`", where)

    assert functions, where
    for module, function in functions:
        handlers = importlib.import_module(f"roomworker.core.{module}")
        assert callable(getattr(handlers, function)), f"{module}.{function}"


@every_name
def test_a_message_is_in_the_table_with_tests_that_exist(name: str) -> None:
    _, tests = TABLE[name]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", tests)

    assert named, tests
    for file, function in named:
        path = ROOT / "tests" / (file if "/" in file else f"unit/roomworker/core/{file}")
        tree = ast.walk(ast.parse(path.read_text()))
        functions = {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in functions, f"{file}::{function}"


def test_the_table_has_nothing_else() -> None:
    assert set(TABLE) == {*RECEIVED, *SENT}
