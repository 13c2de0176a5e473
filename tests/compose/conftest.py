from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import stack
from tests.e2e.conftest import CHROMIUM, browsers, launch

__all__ = ["browsers", "cluster", "image", "launch", "needs"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.compose)


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image of this checkout."""
    if lacking := stack.missing_requirement():
        pytest.skip(lacking)
    stack.build()
    return stack.IMAGE


@pytest.fixture
def needs() -> None:
    """Skips without Chromium. Page and engine are in the image."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")


@pytest.fixture
def cluster(image: str, tmp_path: Path) -> Iterator[stack.Stack]:
    """The cluster of the compose file, before its first `scale` starts it."""
    it = stack.Stack(tmp_path)
    try:
        yield it
    finally:
        it.down()
