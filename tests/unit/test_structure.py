"""The rules of the tree that no other tool checks: sizes, purity, names that were given up.

Which folder may import which is in `.importlinter`.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PRODUCT: Final = ("benchmarks", "devtools", "gateway", "loadtest", "medianode", "plenary", "roomworker", "shared")
FILE_LINES: Final = 400
FUNCTION_LINES: Final = 50

PURE: Final = ("roomworker/core", "gateway/protocol", "shared/protocol")
PURE_IMPORTS: Final = {"msgspec", "shared.protocol", "shared.errors"}
IMPURE: Final = {
    "asyncio", "concurrent", "logging", "multiprocessing", "os", "random", "secrets", "select", "socket",
    "subprocess", "threading", "time",
}  # fmt: skip

WALL_CLOCKS: Final = {
    "gateway/bus/partition_publisher.py": "when a batch was published, for a metric",
    "gateway/http/response.py": "the header `Date`",
    "gateway/websocket/delivery.py": "a metric: how long a batch was under way",
    "gateway/websocket/hub.py": "`accepted`, for room workers of the version before",
    "medianode/outbox.py": "when a batch was published, for a metric",
    "medianode/toolchain/webrtc_client.py": "the dates of a certificate",
    "plenary/status/dead_letters.py": "when a message was set aside, shown",
    "roomworker/core/engine_deaths.py": "until when media is refused, shown",
    "roomworker/messaging/outbox.py": "when a batch was published, for a metric",
    "roomworker/partitions/clock.py": "when a tick was published, for a metric",
    "roomworker/partitions/coordinator.py": "the time with which a cluster begins",
    "roomworker/partitions/partition.py": "a metric: how long a batch was under way",
}
"""The files that may ask what time of day it is, or show one, and for what. docs/explanation/partitions-and-time.md
lists them for readers."""
WALL_CLOCK_NAMES: Final = {
    "time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime", "time.clock_gettime",
    "time.clock_gettime_ns", "datetime.datetime", "datetime.date",
}  # fmt: skip

GIVEN_UP: Final = (
    "Slot|bury|_grave|disown|Complaint|TurnedAway|Departures|Suspects|condemn|stir|strangers_total|_careful|_shunned"
    "|_deaf|_lead|_tell_time|_untold|Kept|Intake|Outlet|in_turns|shims|ASTRAY|hush|Desk|Shelf"
    "|World|Bench|Dropped|Front|Gone|Here|Lane|ResumingPeer"
)


@cache
def tracked(*patterns: str) -> tuple[str, ...]:
    """Paths of the repository's files, also those that git does not know yet; nothing outside a checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this tree is no git checkout")
    return tuple(path for path in listed.stdout.splitlines() if (ROOT / path).exists())


def modules() -> tuple[str, ...]:
    return tracked(*(f"{folder}/*.py" for folder in PRODUCT))


def imports(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module or ""


def test_file_outside_tests_has_at_most_400_lines() -> None:
    long = {path for path in modules() if len((ROOT / path).read_text().splitlines()) > FILE_LINES}
    assert not long


def test_function_outside_tests_has_at_most_50_lines() -> None:
    long = set()
    for path in modules():
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.add(f"{path}: {node.name}")
    assert not long


def test_pure_folder_imports_only_what_is_deterministic() -> None:
    found = set()
    for path in modules():
        if not path.startswith(PURE):
            continue
        package = str(Path(path).parent).replace("/", ".")
        for name in imports(path):
            root = name.partition(".")[0]
            own = any(name == p or name.startswith(f"{p}.") for p in (*PURE_IMPORTS, package, *owners(package)))
            if not own and (root in IMPURE or root not in sys.stdlib_module_names):
                found.add((path, ".".join(name.split(".")[:2])))
    assert not found


def owners(package: str) -> list[str]:
    """The pure packages that `package` is a part of."""
    return [pure.replace("/", ".") for pure in PURE if f"{package}.".startswith(f"{pure.replace('/', '.')}.")]


def wall_clocks(path: str) -> set[str]:
    """The wall clocks that a module names, as `from time import time` or as `time.time`."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text())))
    modules = {
        alias.asname or alias.name: alias.name
        for node in nodes if isinstance(node, ast.Import)
        for alias in node.names if alias.name in ("time", "datetime")
    }  # fmt: skip
    attributes = {
        f"{modules[node.value.id]}.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
    }
    return (attributes | imported_names(path)) & WALL_CLOCK_NAMES


def test_only_the_named_files_ask_a_wall_clock() -> None:
    """No decision may depend on a clock that can be set, or on those of two hosts (DELIVERY T1)."""
    folders = ("gateway/", "medianode/", "plenary/", "roomworker/", "shared/")
    assert {path for path in modules() if path.startswith(folders) and wall_clocks(path)} == set(WALL_CLOCKS)


def test_page_names_every_file_that_asks_a_wall_clock() -> None:
    page = (ROOT / "docs" / "explanation" / "partitions-and-time.md").read_text()
    assert [path for path in WALL_CLOCKS if f"`{path}`" not in page] == []


def test_no_import_is_hidden_from_the_import_contracts() -> None:
    hidden = {path for path in modules() if "typing.TYPE_CHECKING" in imported_names(path)}
    assert not hidden


def imported_names(path: str) -> set[str]:
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_given_up_names_occur_nowhere() -> None:
    pattern = re.compile(rf"\b(?:{GIVEN_UP})\b")
    found = []
    for path in tracked("*.py", "*.lua", "*.js", "*.md", "*.yml", "*.toml", "*.cfg", "Makefile", "Dockerfile"):
        if path == "tests/unit/test_structure.py" or "oracle" in path:
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            if match := pattern.search(line):
                found.append(f"{path}:{number}: {match[0]}")
    assert not found


@pytest.mark.parametrize("folder", PRODUCT)
def test_product_folder_does_not_import_tests(folder: str) -> None:
    found = {path for path in tracked(f"{folder}/*.py") if any(name.startswith("tests.") for name in imports(path))}
    assert not found
