"""Options of the command line, made from the settings: every setting is one, described once (`shared.settings`)."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from shared.settings import Common, GatewaySettings, NodeSettings, WorkerSettings

S = TypeVar("S", bound=Common)

_PANELS: Final = {
    GatewaySettings: "Gateway",
    WorkerSettings: "Room worker",
    NodeSettings: "Media node",
    Common: "Every process",
}


def name(field: str) -> str:
    """`--redis-url` for `redis_url`."""
    return f"--{field.replace('_', '-')}"


def with_options(kind: type[Common], command: Callable[[dict[str, Any]], None], about: str) -> Callable[..., None]:
    """A function for typer whose options are the settings of `kind`; `command` gets those that were typed."""

    def run(**given: Any) -> None:
        command({field: value for field, value in given.items() if value is not None})

    parameters = [
        inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(field, info))
        for field, info in _ordered(kind)
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = about
    return run


def _ordered(kind: type[Common]) -> list[tuple[str, FieldInfo]]:
    """Panel by panel, in each as declared."""
    panels = list(_PANELS.values())
    return sorted(kind.model_fields.items(), key=lambda entry: panels.index(_panel(entry[0])))


def _panel(field: str) -> str:
    """Of the role whose setting it is."""
    return next(panel for owner, panel in _PANELS.items() if field in owner.__annotations__)


def _option(field: str, info: FieldInfo) -> Any:
    choices = get_args(info.annotation) if get_origin(info.annotation) is Literal else ()
    default = "" if info.default in ("", None) else f" Default: {info.default}."
    option = typer.Option(
        name(field),
        help=f"{info.description}{default}",
        show_default=False,
        metavar="|".join(choices) or None,
        rich_help_panel=_panel(field),
    )
    typed: Any = next((kind for kind in (int, float) if info.annotation in (kind, kind | None)), str)
    return Annotated[typed | None, option]


def settings(kind: type[S], typed: Mapping[str, Any]) -> S:
    """What was typed, over the environment, over the defaults. Raises `typer.BadParameter` that names the options."""
    try:
        return kind(**typed)
    except ValidationError as invalid:
        problems = [_problem(error["loc"], error["msg"], typed) for error in invalid.errors()]
        raise typer.BadParameter("\n".join(problems)) from None


def _problem(location: tuple[int | str, ...], message: str, typed: Mapping[str, Any]) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    field = str(location[0])
    return f"{name(field) if field in typed else f'PLENARY_{field.upper()}'}: {message}"
