"""No message of the specification without a handler, a struct, and a place in the verification matrix with a test."""

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import fields

from shared.errors import BadPayload
from shared.protocol import client

ROOT: Final = Path(__file__).parents[2]
SPECIFICATION: Final = ROOT.parent / "shared" / "protocol" / "mediasoup-protocol.md"
MENTIONED_ONLY: Final = "consumerClosed"  # in the text of §closeProducer, without a heading
ENVELOPE: Final = {"method", "target", "notification"}

pytestmark = pytest.mark.skipif(not SPECIFICATION.exists(), reason="the specification is not beside the checkout")


class Chapter:
    """One heading: the message's name, whether it is a request, and the fields of its example."""

    def __init__(self, text: str) -> None:
        self.name, _, body = text.partition("\n")
        self.request = "\nRequest:" in body
        example = re.search(r"```js\n(.*?)```", body, re.DOTALL)
        assert example is not None
        self.fields = set(re.findall(r"^  (\w+)\s*:", example[1], re.MULTILINE)) - ENVELOPE


def chapters(part: str) -> list[Chapter]:
    if not SPECIFICATION.exists():
        return []
    _, from_client, to_client = re.split(r"^## From .*$", SPECIFICATION.read_text(), flags=re.MULTILINE)
    text = from_client if part == "client" else to_client
    return [Chapter(chapter) for chapter in re.split(r"^### ", text, flags=re.MULTILINE)[1:]]


FROM_CLIENT: Final = chapters("client")
TO_CLIENT: Final = chapters("server")
RECEIVED: Final = {struct.__struct_config__.tag: struct for struct in client.FromClient.__subclasses__()}
SENT: Final = {struct.__struct_config__.tag: struct for struct in client.ToClient.__subclasses__()}

from_client = pytest.mark.parametrize("chapter", FROM_CLIENT, ids=lambda chapter: chapter.name)
to_client = pytest.mark.parametrize("chapter", TO_CLIENT, ids=lambda chapter: chapter.name)
every_message = pytest.mark.parametrize(
    "message", [*(chapter.name for chapter in (*FROM_CLIENT, *TO_CLIENT)), MENTIONED_ONLY]
)


def names(struct: type[client.FromClient | client.ToClient]) -> set[str]:
    return {field.encode_name for field in fields(struct)}


def test_the_specification_has_as_many_messages_as_ever() -> None:
    assert (len(FROM_CLIENT), len(TO_CLIENT)) == (22, 15)
    assert MENTIONED_ONLY not in {chapter.name for chapter in TO_CLIENT}


# --- from client to server ----------------------------------------------------------------------------------------


def refusal(decode: Callable[[bytes], object], message: str) -> str:
    """Why a message without any field is refused; empty if it is not."""
    try:
        decode(f'{{"method":"{message}"}}'.encode())
    except BadPayload as refused:
        return refused.reason
    return ""


@from_client
def test_a_clients_message_is_decoded_as_the_request_or_notification_it_is(chapter: Chapter) -> None:
    decoders = (client.decode_request, client.decode_notification)
    decode, other = decoders if chapter.request else reversed(decoders)

    assert re.fullmatch(r"|\w+: missing", refusal(decode, chapter.name))
    assert refusal(other, chapter.name).startswith("method: unknown method")


@from_client
def test_a_clients_message_has_the_fields_of_the_specification(chapter: Chapter) -> None:
    assert chapter.fields <= names(RECEIVED[chapter.name])


@from_client
def test_a_clients_message_has_a_handler(chapter: Chapter) -> None:
    struct = RECEIVED[chapter.name]

    assert client.KIND_BY_METHOD[chapter.name] is struct


def test_there_are_no_handlers_of_anything_else() -> None:
    assert set(RECEIVED) == {chapter.name for chapter in FROM_CLIENT}


# --- from server to client ----------------------------------------------------------------------------------------


@to_client
def test_a_notification_has_the_fields_of_the_specification(chapter: Chapter) -> None:
    assert chapter.fields <= names(SENT[chapter.name])


def test_there_are_no_other_notifications() -> None:
    assert set(SENT) == {chapter.name for chapter in TO_CLIENT} | {MENTIONED_ONLY}


def made_by_the_room_worker() -> Iterator[str]:
    """What is called as `client.X(…)`, or chosen to be: `client.X if … else client.Y`."""
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


@every_message
def test_a_message_is_in_the_table_with_the_functions_that_carry_it_out(message: str) -> None:
    where, _ = TABLE[message]
    functions = re.findall(r"`(\w+)\.(\w+)`", where)

    assert functions, where
    for module, function in functions:
        handlers = importlib.import_module(f"roomworker.core.{module}")
        assert callable(getattr(handlers, function)), f"{module}.{function}"


@every_message
def test_a_message_is_in_the_table_with_tests_that_exist(message: str) -> None:
    _, tests = TABLE[message]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", tests)

    assert named, tests
    for file, function in named:
        path = ROOT / "tests" / (file if "/" in file else f"unit/roomworker/core/{file}")
        tree = ast.walk(ast.parse(path.read_text()))
        functions = {node.name for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in functions, f"{file}::{function}"


def test_the_table_has_nothing_else() -> None:
    assert set(TABLE) == {*RECEIVED, *SENT}
