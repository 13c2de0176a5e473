"""Makes an option of the command line from every setting of `shared.settings`, with its description as help."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from shared.secrets import SecretFileError, file_variable
from shared.settings import SECRETS, Common, GatewaySettings, NodeSettings, RunSettings, WorkerSettings
from shared.telemetry import log

S = TypeVar("S", bound=Common)

_PANELS: Final = {
    GatewaySettings: "Gateway",
    WorkerSettings: "Room worker",
    NodeSettings: "Media node",
    Common: "Every process",
}

_PREFIX: Final = "PLENARY_"
_OTHER_VARIABLES: Final = frozenset(
    {
        "PLENARY_API_URL",  # read by `plenary rooms`, `peers` and `api`
        "PLENARY_CACHE",  # read by `medianode.toolchain`
        "PLENARY_ENGINE_FROM_SOURCE",
        "PLENARY_MEDIASOUP_WORKER",
        # read by docker-compose.yml, whose .env file may be loaded into a shell, too
        "PLENARY_HTTP_PORT",
        "PLENARY_HTTPS_PORT",
        "PLENARY_MEDIA_PORTS",
        "PLENARY_TLS_PEM",
        # read by the tests
        "PLENARY_TEST_AMQP_URL",
        "PLENARY_TEST_REDIS_URL",
    }
)

logger = log.get("settings")


def name(field: str) -> str:
    """Returns the option of a field: `--redis-url` for `redis_url`."""
    return f"--{field.replace('_', '-')}"


def with_options(
    kind: type[Common], command: Callable[[dict[str, Any]], None], help_text: str
) -> Callable[..., None]:
    """Returns a function for typer whose options are the settings of `kind`; `command` gets those that were typed."""

    def run(**given: Any) -> None:
        command({field: value for field, value in given.items() if value is not None})

    parameters = [
        inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(field, info))
        for field, info in _ordered(kind)
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = help_text
    return run


def _ordered(kind: type[Common]) -> list[tuple[str, FieldInfo]]:
    """Returns the fields panel by panel, within each in the order of their declaration."""
    panels = list(_PANELS.values())
    return sorted(kind.model_fields.items(), key=lambda entry: panels.index(_panel(entry[0])))


def _panel(field: str) -> str:
    """Returns the panel of the role that has the setting."""
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
    """Returns settings from typed options, the environment and the defaults, in this order of precedence.

    Raises `typer.BadParameter`, which names the invalid options and variables.
    """
    try:
        return kind(**typed)
    except SecretFileError as unusable:
        raise typer.BadParameter(str(unusable)) from None
    except ValidationError as invalid:
        problems = [_problem(error["loc"], error["msg"], typed) for error in invalid.errors()]
        raise typer.BadParameter("\n".join(problems)) from None


def unknown_variables(environment: Iterable[str]) -> dict[str, str]:
    """Returns the unknown names that begin with `PLENARY_`, each with the most similar known one, or ""."""
    known = {f"{_PREFIX}{field.upper()}" for field in RunSettings.model_fields} | _OTHER_VARIABLES
    known |= {file_variable(field) for field in SECRETS}
    unknown = sorted(name for name in environment if name.upper().startswith(_PREFIX) and name.upper() not in known)
    return {name: next(iter(difflib.get_close_matches(name.upper(), known, n=1)), "") for name in unknown}


def warn_of_unknown_variables(environment: Iterable[str]) -> None:
    """Logs `setting.unknown` for each unknown variable."""
    for variable, nearest in unknown_variables(environment).items():
        hint = {"nearest": nearest} if nearest else {}
        logger.warning("setting.unknown", variable=variable, **hint)


def _problem(location: tuple[int | str, ...], message: str, typed: Mapping[str, Any]) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message
    field = str(location[0])
    return f"{name(field) if field in typed else f'PLENARY_{field.upper()}'}: {message}"
