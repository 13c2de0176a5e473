from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.compose)


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the image of this checkout."""
    if lacking := stack.why_not():
        pytest.skip(lacking)
    stack.build()
    return stack.IMAGE


@pytest.fixture
def cluster(image: str) -> Iterator[stack.Stack]:
    """One of each role, on the null engine; not started."""
    it = stack.Stack()
    try:
        yield it
    finally:
        it.down()
