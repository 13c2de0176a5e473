"""The documents name tests as proof: each of them exists, and no rule of delivery is without."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
RULES: Final = [
    f"{group}{number}"
    for group, count in {"I": 8, "B": 6, "C": 7, "O": 6, "T": 3, "S": 4}.items()
    for number in range(1, count + 1)
]
NAMED: Final = re.compile(r"`([\w/]*test_\w+\.py)?(?:::(test_\w+))?`")


@cache
def files(name: str) -> list[Path]:
    """Those whose path ends so."""
    found = ROOT.joinpath("tests").rglob(Path(name).name)
    return [path for path in found if f"/{path.relative_to(ROOT)}".endswith(f"/{name}")]


@cache
def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def has(file: str, test: str) -> bool:
    return any(test in functions(path) for path in files(file))


def named(text: str) -> list[tuple[str, str]]:
    """(file, test or nothing); `::test` alone is in the file named before."""
    tests: list[tuple[str, str]] = []
    for file, test in NAMED.findall(text):
        if file or (test and tests):
            tests.append((file or tests[-1][0], test))
    return tests


def rules() -> dict[str, list[tuple[str, str]]]:
    """What ARCHITECTURE's table names for each rule."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    section = text.partition("\n## The rules of delivery\n")[2].partition("\n## ")[0]
    return {row[1]: named(row[2]) for row in re.finditer(r"^\| (\w\d) \|.*\|(.*)\|$", section, re.MULTILINE)}


def test_every_rule_of_delivery_has_a_test() -> None:
    table = rules()
    assert list(table) == RULES
    for rule, tests in table.items():
        assert any(test for _, test in tests), rule


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "README.md"])
def test_every_test_that_a_document_names_exists(document: str) -> None:
    found = named((ROOT / document).read_text())
    assert len(found) > 20
    missing = [f"{file}::{test}" for file, test in found if not files(file) or (test and not has(file, test))]
    assert not missing


def test_a_named_test_that_does_not_exist_would_be_seen() -> None:
    assert named("`test_x.py::test_a`, `::test_b`; `api/test_y.py`") == [
        ("test_x.py", "test_a"),
        ("test_x.py", "test_b"),
        ("api/test_y.py", ""),
    ]
    assert not files("test_nowhere.py")
    assert "test_nothing" not in functions(Path(__file__))
