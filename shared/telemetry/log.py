"""Configures logs: one line for each event, as text on a terminal and as JSON elsewhere.

Event names are dotted, `noun.verb`; facts are keys, the same everywhere: `room`, `peer`, `session`, `connection`,
`gateway`, `worker`, `node`, `partition`, `method`, `code`, `reason`, `error`, `seconds`.

Secrets never reach a line: values of secret keys are replaced, and credentials and query strings of URLs in any
value. Every value has a greatest length, which for names that clients choose is that of their text in errors. Of one
event at most `LIMIT` lines a second are written; a line `log.suppressed` counts the others.
"""

import asyncio
import atexit
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Any, Final, TypeAlias

import structlog
from structlog.typing import EventDict

from shared.errors import cut

LIMIT: Final = 50
"""The number of lines of one event in one second."""
WINDOW_SECONDS: Final = 1.0
SUPPRESSED: Final = "log.suppressed"
HIDDEN: Final = "…"
VALUE_CHARS: Final = 2000
"""Characters of one value of a line."""
TRACEBACK_CHARS: Final = 20_000

_TRACEBACK_KEYS: Final = frozenset({"exception", "stack"})
_CLIENT_TEXT_KEYS: Final = frozenset({"room", "peer", "session", "method", "user_agent", "address"})

_SECRET_KEYS: Final = frozenset(
    {"token", "resume", "password", "authorization", "api_key", "key", "secret", "cookie", "query", "query_string"}
)
_CREDENTIALS: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/]*@", re.IGNORECASE)
_QUERY: Final = re.compile(r"""\?[\w.~%+-]+=[^\s"'<>)\]}]*""")

Report: TypeAlias = Callable[[str, int], None]

_level = logging.NOTSET


def without_secrets(text: str) -> str:
    """Returns the text with `…` for credentials (`amqp://…@host`) and query strings (`/?…`) of URLs."""
    if "://" in text:
        text = _CREDENTIALS.sub(rf"\1{HIDDEN}@", text)
    if "?" in text:
        text = _QUERY.sub(f"?{HIDDEN}", text)
    return text


def _clean(value: Any) -> Any:
    match value:
        case str():
            return without_secrets(value)
        case BaseException():
            return without_secrets(repr(value))
        case dict():
            return {key: HIDDEN if _is_secret(key) else _clean(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(inner) for inner in value]
        case _:
            return value


def _is_secret(key: Any) -> bool:
    return isinstance(key, str) and key.lower() in _SECRET_KEYS


def hide_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    """Removes secrets from a line and cuts its values, as a processor of structlog."""
    for key, value in event.items():
        event[key] = HIDDEN if _is_secret(key) else _cut(key, _clean(value))
    return event


def _cut(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if key in _CLIENT_TEXT_KEYS:
        return cut(value)
    return cut(value, TRACEBACK_CHARS if key in _TRACEBACK_KEYS else VALUE_CHARS)


class RateLimit:
    """A structlog processor that drops the lines of an event beyond `LIMIT` a second.

    `report` is called with an event and how many of its lines were dropped: when its second is over (if an event loop
    runs), at the next line of any event, or by `flush`.
    """

    def __init__(self, report: Report, clock: Callable[[], float] = monotonic) -> None:
        self._report = report
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}
        """The start of each event's window, and its lines since."""
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        name = str(event.get("event", ""))
        if name == SUPPRESSED:
            return event
        now = self._clock()
        self.flush(now)
        began, lines = self._windows.get(name, (now, 0))
        self._windows[name] = began, lines + 1
        if lines < LIMIT:
            return event
        self._schedule()
        raise structlog.DropEvent

    def flush(self, now: float = float("inf")) -> None:
        """Ends the windows that are over at `now`, by default all, and reports what was dropped in them."""
        ended = [name for name, (began, _) in self._windows.items() if now - began >= WINDOW_SECONDS]
        dropped = [(name, self._windows.pop(name)[1] - LIMIT) for name in ended]
        for name, count in dropped:
            if count > 0:
                self._report(name, count)

    def _schedule(self) -> None:
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the next line, or the end of the process, reports
        self._timer = loop.call_later(WINDOW_SECONDS, self._over)

    def _over(self) -> None:
        self._timer = None
        self.flush(self._clock())
        if any(lines > LIMIT for _, lines in self._windows.values()):
            self._schedule()


def _report_suppressed(name: str, count: int) -> None:
    get("log").warning(SUPPRESSED, suppressed=name, count=count)


def configure(level: str = "info", fmt: str = "auto", **bound: Any) -> None:
    """Sets logging up for this process; `bound` (role, name) is in every line.

    `fmt` is `text`, `json` or `auto`: text on a terminal. Text has colors on a terminal only.
    """
    global _level
    _level = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stderr.isatty()
    as_text = fmt == "text" or (fmt == "auto" and terminal)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=terminal, exception_formatter=structlog.dev.plain_traceback)
        if as_text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    limit = RateLimit(_report_suppressed)
    atexit.register(limit.flush)
    structlog.configure(
        processors=[
            limit,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            hide_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**bound)


def get(name: str) -> Any:
    """Returns a logger; `name` is the part of the process that writes."""
    return structlog.get_logger(part=name)


def is_enabled(level: int) -> bool:
    """Returns whether lines of a level (`logging.INFO`) are written, so that work for the log can be left out."""
    return level >= _level
