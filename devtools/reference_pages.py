"""Generates the tables of docs/reference from the code, so that the pages cannot differ from it.

A page holds blocks between `<!-- generated: NAME -->` and `<!-- end -->`; everything outside them is written by hand.
`python -m devtools.reference_pages` rewrites the blocks, and `--check` only says which pages are out of date.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
import typer
from msgspec import UnsetType

from devtools.documented_limits import limits
from gateway.api.operations import OPERATIONS
from gateway.metrics import GatewayMetrics
from medianode.metrics import NodeMetrics
from plenary import cli
from plenary.processes.internal_http import InternalServer
from roomworker.metrics import WorkerMetrics
from shared import errors
from shared.protocol import client
from shared.secrets import file_variable
from shared.settings import SECRETS, Common, GatewaySettings, NodeSettings, WorkerSettings

DOCS: Final = Path(__file__).parents[1] / "docs"
REFERENCE: Final = DOCS / "reference"
MESSAGES: Final = REFERENCE / "protocol_messages.toml"

_BLOCK: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PANELS: Final[dict[str, type[Common]]] = {
    "Every process": Common,
    "Gateway": GatewaySettings,
    "Room worker": WorkerSettings,
    "Media node": NodeSettings,
}
_ROLES: Final = {
    "Every process": InternalServer.described,
    "Gateway": GatewayMetrics.described,
    "Room worker": WorkerMetrics.described,
    "Media node": NodeMetrics.described,
}

Row = Iterable[object]


def table(head: Row, rows: Iterable[Row]) -> str:
    """Formats a Markdown table."""
    lines = [_row(head), "|" + "---|" * len(list(head)), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Row) -> str:
    texts = [" ".join(str(cell).split()).replace("|", "\\|") for cell in cells]
    return "| " + " | ".join(texts) + " |"


# --- settings and commands ----------------------------------------------------------------------------------------


def settings() -> str:
    """Lists every setting of every role: variable, default, meaning."""
    parts = []
    for title, kind in _PANELS.items():
        own = {name: info for name, info in kind.model_fields.items() if name in kind.__annotations__}
        rows = [
            (
                f"`PLENARY_{name.upper()}`",
                f"`{info.default}`" if info.default not in ("", None) else "",
                f"{info.description} Or in a file: `{file_variable(name)}`." if name in SECRETS else info.description,
            )
            for name, info in own.items()
        ]
        parts.append(f"### {title}\n\n" + table(("variable", "default", "meaning"), rows))
    return "\n".join(parts)


def commands() -> str:
    """Lists every command with its arguments and options, without those that are settings."""
    return "\n".join(_commands("plenary", typer.main.get_command(cli.app)))


def _commands(name: str, command: Any) -> Iterator[str]:
    for sub, each in getattr(command, "commands", {}).items():
        full = f"{name} {sub}"
        if hasattr(each, "commands"):
            yield from _commands(full, each)
        else:
            yield _command(full, each)


def _command(name: str, command: Any) -> str:
    own = [parameter for parameter in command.params if getattr(parameter, "rich_help_panel", None) not in _PANELS]
    text = f"### {name}\n\n{command.help.strip()}\n"
    if len(own) < len(command.params):
        panels = [panel for panel in _PANELS if any(each.rich_help_panel == panel for each in command.params)]
        text += f"\nOptions: the settings of [{', '.join(panels)}](configuration.md).\n"
    rows = [(_option(each), _default(each), each.help or "") for each in own]
    return text + ("\n" + table(("argument or option", "default", "meaning"), rows) if rows else "")


def _option(parameter: Any) -> str:
    names = [*parameter.opts, *parameter.secondary_opts]
    if not names[0].startswith("-"):
        return f"`{names[0].upper()}`"
    return ", ".join(f"`{name}`" for name in names)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.envvar:
        return f"`{parameter.envvar}`" + (f", else `{parameter.default}`" if parameter.default else "")
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    return "" if shown in (None, False, "", (), []) else f"`{shown}`"


# --- errors, metrics ----------------------------------------------------------------------------------------------


def error_codes() -> str:
    rows = [
        (code, kind.meaning, "yes" if kind.temporary else "no", kind.advice) for code, kind in errors.ERRORS.items()
    ]
    return table(("code", "meaning", "temporary", "what to do"), rows)


def close_codes() -> str:
    rows = [
        (
            kind.code,
            kind.reason,
            "reconnects" if kind.reconnects else "stays away",
            "yes" if kind.resumable else "no",
            kind.advice,
        )
        for kind in errors.CLOSES
    ]
    return table(("code", "reason", "protoo-client", "session can be resumed", "what to do"), rows)


def metrics() -> str:
    """Lists every metric of every role: name, type, labels, meaning."""
    parts = []
    for title, described in _ROLES.items():
        rows = [
            (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help)
            for each in described
        ]
        parts.append(f"## {title}\n\n" + table(("name", "type", "labels", "meaning"), rows))
    return "\n".join(parts)


def limits_table() -> str:
    return table(("what", "limit", "what happens beyond it"), limits())


def operations() -> str:
    """Lists every request of the server API with the fields of its body; required ones are bold."""
    rows = [
        (
            f"`{each.method} {each.path.replace('/v1/rooms/{room}/', '…/')}`",
            ", ".join(f"**`{name}`**" if required else f"`{name}`" for name, required in each.body.items()),
            each.summary,
        )
        for each in OPERATIONS
    ]
    return table(("request", "body (required in bold)", "what it does"), rows)


# --- messages -----------------------------------------------------------------------------------------------------

_STRUCTS: Final = {
    struct.__struct_config__.tag: struct
    for base in (client.FromClient, client.ToClient)
    for struct in base.__subclasses__()
}
_ANSWERS: Final = {
    "queryRoom": client.RoomInfo,
    "join": client.Joined,
    "createTransport": client.TransportInfo,
    "restartTransport": client.TransportRestarted,
    "createProducer": client.Nothing,
    "enableConsumer": client.ConsumerEnabled,
}


def messages_of(direction: str) -> str:
    facts = tomllib.loads(MESSAGES.read_text())
    return "\n".join(_message(message, facts["fields"]) for message in facts[direction])


def _message(message: dict[str, Any], meanings: dict[str, str]) -> str:
    struct = _STRUCTS[message["name"]]
    text = f"### {message['name']}\n\n{message['kind'].capitalize()}. {message['summary']}\n"
    rows = list(_fields(struct, [*message["fields"], *message.get("ours", [])], meanings))
    if rows:
        text += "\n" + table(("field", "type", "required", "meaning"), rows)
    if "response" in message:
        answer = list(_fields(_ANSWERS[message["name"]], message["response"], meanings))
        text += "\nThe answer is an empty object.\n" if not answer else "\nThe answer:\n\n"
        if answer:
            text += table(("field", "type", "meaning"), [(row[0], row[1], row[3]) for row in answer])
    return text


def _fields(struct: type[Any], names: list[str], meanings: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    known = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for name in names:
        meaning = "the object's number" if name == "id" else meanings[name]
        yield f"`{name}`", type_name(known[name].type), "yes" if known[name].required else "no", meaning


def type_name(annotation: Any) -> str:
    """Returns the JSON name of a field's type."""
    origin = get_origin(annotation)
    match origin:
        case _ if origin is Annotated:
            return type_name(get_args(annotation)[0])
        case _ if origin is Literal:
            return " or ".join(f'`"{choice}"`' for choice in get_args(annotation))
        case _ if origin in (UnionType, Union):
            parts = [part for part in get_args(annotation) if part is not UnsetType]
            return " or ".join("null" if part is type(None) else type_name(part) for part in parts)
        case _ if origin is list:
            return f"list of {type_name(get_args(annotation)[0])}"
        case _ if origin is dict:
            return "object"
    simple = {int: "integer", float: "number", str: "string", bool: "boolean", msgspec.Raw: "any JSON"}
    return simple.get(annotation, "object")


# --- pages --------------------------------------------------------------------------------------------------------

BLOCKS: Final[dict[str, Callable[[], str]]] = {
    "settings": settings,
    "commands": commands,
    "errors": error_codes,
    "close_codes": close_codes,
    "metrics": metrics,
    "limits": limits_table,
    "operations": operations,
    "messages_from_client": lambda: messages_of("client"),
    "messages_from_server": lambda: messages_of("server"),
}


def pages() -> list[Path]:
    """Returns the pages that hold generated blocks."""
    return [page for page in sorted(DOCS.rglob("*.md")) if _BLOCK.search(page.read_text())]


def renewed(text: str) -> str:
    """Returns a page's text with every block generated anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n{found[3]}", text)


def main() -> None:
    outdated = [page for page in pages() if renewed(page.read_text()) != page.read_text()]
    for page in outdated:
        if "--check" not in sys.argv:
            page.write_text(renewed(page.read_text()))
        print(f"{'out of date' if '--check' in sys.argv else 'rewritten'}: {page.relative_to(DOCS.parent)}")
    sys.exit(bool(outdated) and "--check" in sys.argv)


if __name__ == "__main__":
    main()
