"""The documents name tests as proof: each of them exists, and no rule of delivery is without."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = [ROOT / "README.md", *sorted(ROOT.joinpath("docs").rglob("*.md"))]
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
    """The tests that the table in docs/explanation/delivery.md names for each rule."""
    text = (ROOT / "docs" / "explanation" / "delivery.md").read_text()
    section = text.partition("\n## The rules\n")[2].partition("\n## ")[0]
    return {row[1]: named(row[2]) for row in re.finditer(r"^\| (\w\d) \|.*\|(.*)\|$", section, re.MULTILINE)}


def test_every_rule_of_delivery_has_a_test() -> None:
    table = rules()
    assert list(table) == RULES
    for rule, tests in table.items():
        assert any(test for _, test in tests), rule


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    found = named(document.read_text())
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


def test_documents_name_many_tests() -> None:
    assert sum(len(named(document.read_text())) for document in DOCUMENTS) > 150


LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK: Final = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """Targets of the links outside code blocks."""
    return LINK.findall(CODE_BLOCK.sub("", text))


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, formed as GitHub and mkdocs form them."""
    headings = re.findall(r"^#+ (.*)$", CODE_BLOCK.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    broken = []
    for link in links(document.read_text()):
        if re.match(r"https?://", link):
            continue
        file, _, anchor = link.partition("#")
        target = document.parent.joinpath(file).resolve() if file else document
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_internal_links_of_a_document_lead_somewhere(document: Path) -> None:
    assert not broken_links(document)


def test_broken_link_and_broken_anchor_are_found(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("# Some heading\n[a](#some-heading) [b](#other) [c](nowhere.md)\n```\n[d](code.md)\n```\n")
    assert broken_links(document) == ["#other", "nowhere.md"]


def test_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
