"""Logs: one line an event, readable on a terminal, JSON elsewhere. Tokens never appear in them."""

import logging
import sys
from typing import Any

import structlog

_SECRET_KEYS = frozenset({"token", "resume", "password", "authorization"})


_level = logging.NOTSET


def _hide_secrets(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key in _SECRET_KEYS & event.keys():
        event[key] = "…"
    return event


def configure(level: str = "info", fmt: str = "auto", **bound: Any) -> None:
    """Sets logging up for this process; `bound` (role, name) is in every line."""
    global _level
    _level = logging.getLevelNamesMapping()[level.upper()]
    as_text = fmt == "text" or (fmt == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _hide_secrets,
            structlog.processors.StackInfoRenderer(),
            *([] if as_text else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**bound)


def get(name: str) -> Any:
    """A logger; `name` says which part of the process speaks."""
    return structlog.get_logger(part=name)


def is_enabled(level: int) -> bool:
    """Whether lines of a level (`logging.INFO`) are written: asked before work is done that only the log needs."""
    return level >= _level
