"""The generated tables of docs/reference are as the code has them now."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Raw, UnsetType

from devtools import reference_pages
from devtools.documented_limits import limits, size
from devtools.reference_pages import BLOCKS, DOCS, pages, renewed, table, type_name


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_generated_tables_of_a_page_are_current(page: Path) -> None:
    assert page.read_text() == renewed(page.read_text()), "run: python -m devtools.reference_pages"


def test_every_generated_table_is_on_a_page() -> None:
    text = "".join(page.read_text() for page in pages())
    for block in BLOCKS:
        assert text.count(f"<!-- generated: {block} -->") == 1


def test_outdated_table_is_renewed_and_its_surroundings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reference_pages.BLOCKS, "errors", lambda: "new\n")
    page = "by hand\n<!-- generated: errors -->\nold\n<!-- end -->\nby hand, too\n"
    assert renewed(page) == "by hand\n<!-- generated: errors -->\n\nnew\n\n<!-- end -->\nby hand, too\n"


def test_every_message_of_the_protocol_is_rendered() -> None:
    text = (DOCS / "reference" / "messages.md").read_text()
    for name in reference_pages._STRUCTS:
        assert f"\n### {name}\n" in text


def test_cells_of_a_table_are_single_lines_without_bars() -> None:
    assert table(("a", "b"), [("1|2", "two\n lines")]) == "| a | b |\n|---|---|\n| 1\\|2 | two lines |\n"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Annotated[int, Meta(ge=0)], "integer"),
        (Literal["send", "recv"], '`"send"` or `"recv"`'),
        (bool | None, "boolean or null"),
        (Raw | UnsetType, "any JSON"),
        (list[dict[str, Any]], "list of object"),
        (float, "number"),
    ],
)
def test_types_are_named_as_in_json(annotation: Any, expected: str) -> None:
    assert type_name(annotation) == expected


def test_every_limit_has_a_figure() -> None:
    for what, limit, beyond in limits():
        assert any(character.isdigit() for character in limit), what
        assert beyond


@pytest.mark.parametrize(("number", "text"), [(262144, "256 KiB"), (1048576, "1 MiB"), (1000, "1000 bytes")])
def test_sizes_are_written_with_their_unit(number: int, text: str) -> None:
    assert size(number) == text
