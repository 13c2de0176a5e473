"""Documents are current: tests, files, commands and links they name exist; each delivery rule names its tests."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from plenary import cli
from shared.cluster import redis_keys

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
    """The files of tests/ whose path ends with the name."""
    found = ROOT.joinpath("tests").rglob(Path(name).name)
    return [path for path in found if f"/{path.relative_to(ROOT)}".endswith(f"/{name}")]


@cache
def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def has(file: str, test: str) -> bool:
    return any(test in functions(path) for path in files(file))


def named(text: str) -> list[tuple[str, str]]:
    """The tests that a text names, as (file, test or nothing); `::test` alone is in the file named before."""
    tests: list[tuple[str, str]] = []
    for file, test in NAMED.findall(text):
        if file or (test and tests):
            tests.append((file or tests[-1][0], test))
    return tests


def rules() -> dict[str, str]:
    """The sections of docs/explanation/delivery.md, by rule."""
    text = (ROOT / "docs" / "explanation" / "delivery.md").read_text()
    sections = re.split(r"^##+ ", text, flags=re.MULTILINE)
    return {section[:2]: section for section in sections if re.match(r"[A-Z]\d ", section)}


def test_every_delivery_rule_is_stated_in_order() -> None:
    assert list(rules()) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_delivery_rule_names_its_reason_place_and_tests(rule: str) -> None:
    section = rules()[rule]
    for part in ("Why", "Where", "Tests"):
        assert f"\n{part}:" in section
    assert any(test for _, test in named(section.partition("\nTests:")[2]))


def test_every_rule_that_the_code_cites_is_stated() -> None:
    cited = {
        rule
        for folder in ("gateway", "roomworker", "medianode", "shared", "plenary", "loadtest", "tests")
        for path in ROOT.joinpath(folder).rglob("*.py")
        for rule in re.findall(r"DELIVERY ([A-Z]\d)\b", path.read_text())
    }
    assert cited
    assert cited <= set(RULES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    found = named(document.read_text())
    missing = [f"{file}::{test}" for file, test in found if not files(file) or (test and not has(file, test))]
    assert not missing


def test_named_test_that_does_not_exist_is_found() -> None:
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


COMPOSE_VARIABLES: Final = set(re.findall(r"\bPLENARY_[A-Z_]+\b", (ROOT / ".env.example").read_text()))
FOLDERS: Final = (
    "gateway|roomworker|medianode|shared|plenary|loadtest|benchmarks|devtools|web|deploy|scripts|docs|tests"
)
NAMED_FILE: Final = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    assert not [
        name
        for name in NAMED_FILE.findall(document.read_text())
        if not (ROOT / name).exists() and "/dist/" not in name
    ]


def test_named_file_that_does_not_exist_is_found() -> None:
    assert NAMED_FILE.findall("`gateway/nowhere.py`, `docs/`, `other/x.py`") == ["gateway/nowhere.py", "docs/"]


def blocks(document: Path) -> str:
    """The lines of a document's code blocks."""
    return "\n".join(CODE_BLOCK.findall(document.read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shown_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = re.findall(r"^make ([a-z][\w-]*)", blocks(document), re.MULTILINE)
    shown += re.findall(r"`make ([a-z][\w-]*)", document.read_text())
    assert set(shown) <= targets


def commands(command: Any, name: str = "plenary") -> dict[str, set[str]]:
    """The options of every command by its name; those of groups are empty."""
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    found = {name: options | {"--help", "-h", "--version"}}
    for sub, each in getattr(command, "commands", {}).items():
        found |= commands(each, f"{name} {sub}")
    return found


def shown_commands(text: str) -> Iterator[list[str]]:
    """The words of each `plenary …` line in code blocks and of each `plenary …` in backticks."""
    joined = "\n".join(CODE_BLOCK.findall(text)).replace("\\\n", " ")
    lines = re.findall(r"^(?:\.venv/bin/)?plenary .*$", joined, re.MULTILINE)
    for line in (*lines, *re.findall(r"`(plenary [a-z][^`]*)`", CODE_BLOCK.sub("", text))):
        yield line.partition("#")[0].partition("|")[0].removeprefix(".venv/bin/").split()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shown_command_and_option_exists(document: Path) -> None:
    known = commands(typer.main.get_command(cli.app))
    for words in shown_commands(document.read_text()):
        name = next((" ".join(words[:length]) for length in (3, 2) if " ".join(words[:length]) in known), "")
        assert name, words
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known[name], words


def test_shown_command_that_does_not_exist_is_found() -> None:
    text = "`plenary nothing` and\n```\nplenary status --url x \\\n  --json\n```\n"
    assert list(shown_commands(text)) == [["plenary", "status", "--url", "x", "--json"], ["plenary", "nothing"]]
    assert "plenary nothing" not in commands(typer.main.get_command(cli.app))


def test_no_document_tells_to_install_the_foreign_package() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"pip install (-U )?['\"]?plenary(?!-signaling)", document.read_text())


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "adr"
    decisions = {path.name for path in folder.glob("*.md")} - {"index.md"}
    assert decisions == set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "index.md").read_text()))


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "adr").glob("0*.md")), ids=lambda path: path.stem)
def test_decision_states_context_decision_and_consequence(path: Path) -> None:
    headings = re.findall(r"^## (.*)$", path.read_text(), re.MULTILINE)
    assert {"Context", "Decision"} <= set(headings)
    assert any(heading.startswith("Consequence") for heading in headings)


def test_every_redis_key_is_documented() -> None:
    keys = re.findall(r"^([a-z]+:\S+)  ", redis_keys.__doc__ or "", re.MULTILINE)
    documented = (ROOT / "docs" / "reference" / "redis-keys.md").read_text()
    assert len(keys) > 5
    assert [key for key in keys if f"`{key}`" not in documented] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_that_a_document_names_is_a_setting(document: Path) -> None:
    reference = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    known = set(re.findall(r"`(PLENARY_[A-Z_]+)`", reference)) | COMPOSE_VARIABLES
    assert set(re.findall(r"\bPLENARY_[A-Z_]+\b", document.read_text())) <= known


def test_every_log_event_that_the_monitoring_page_names_is_logged() -> None:
    section = (ROOT / "docs" / "how-to" / "monitor.md").read_text().partition("\n## Logs\n")[2]
    events = re.findall(r"`([a-z]+\.[a-z_]+)`", section)
    folders = ("gateway", "roomworker", "medianode", "shared", "plenary")
    code = "".join(path.read_text() for folder in folders for path in ROOT.joinpath(folder).rglob("*.py"))
    assert len(events) > 10
    assert [event for event in events if f'"{event}"' not in code] == []
