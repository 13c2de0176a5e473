"""Finds the version of the installed distribution `plenary-signaling`."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Final

DISTRIBUTION: Final = "plenary-signaling"
NOT_INSTALLED: Final = "unknown"


def version() -> str:
    """Returns the version, like `0.1.0`; `unknown` where the code runs without being installed."""
    try:
        return installed_version(DISTRIBUTION)
    except PackageNotFoundError:
        return NOT_INSTALLED
