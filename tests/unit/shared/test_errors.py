"""The tables of errors and close codes are complete, and every page that shows them is made from them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.api import openapi
from gateway.websocket import resumable_connection
from shared import errors
from shared.errors import CLOSES, ERRORS, CloseKind, PlenaryError, error

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "errors.md"


def test_every_error_class_has_its_row_and_every_row_its_class() -> None:
    classes = PlenaryError.__subclasses__()
    assert {kind.code for kind in classes} == set(ERRORS)
    assert {type(error(code, "why")) for code in ERRORS} == set(classes)
    assert isinstance(error(599, "why"), errors.InternalError)


def test_every_close_kind_is_listed_once() -> None:
    defined = [kind for kind in vars(errors).values() if isinstance(kind, CloseKind)]
    assert sorted(map(repr, defined)) == sorted(map(repr, CLOSES))


@pytest.mark.parametrize("kind", CLOSES, ids=lambda kind: f"{kind.code}-{kind.reason[:20]}")
def test_a_close_kind_is_complete_and_fits_into_a_close_frame(kind: CloseKind) -> None:
    assert kind.advice
    assert len(kind.reason.encode()) <= 123
    assert not kind.resumable or kind.reconnects


def test_codes_that_end_a_session_are_not_resumable() -> None:
    final = set(resumable_connection.FINAL_CODES_OF_GATEWAY)
    assert final <= {kind.code for kind in CLOSES}
    assert not [kind for kind in CLOSES if kind.code in final and kind.resumable]


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_reference_page_and_api_describe_an_error_as_the_table_does(code: int) -> None:
    kind = ERRORS[code]
    cells = f"| {code} | {kind.meaning} | {'yes' if kind.temporary else 'no'} | {kind.advice} |"
    assert cells in PAGE.read_text()
    assert openapi.document("1")["components"]["responses"][str(code)]["description"] == kind.meaning
    assert kind.meaning in openapi.page()


@pytest.mark.parametrize("kind", CLOSES, ids=lambda kind: f"{kind.code}-{kind.reason[:20]}")
def test_reference_page_describes_a_close_code_as_the_table_does(kind: CloseKind) -> None:
    protoo = "reconnects" if kind.reconnects else "stays away"
    cells = f"| {kind.code} | {kind.reason} | {protoo} | {'yes' if kind.resumable else 'no'} | {kind.advice} |"
    assert cells in PAGE.read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("alice", "'alice'"),
        ("it's", '"it\'s"'),
        ("a\nb", r"'a\nb'"),
        ("x" * 98, f"'{'x' * 98}'"),
        ("x" * 99, f"'{'x' * 97}…'"),
        ("x" * 250_000, f"'{'x' * 97}…'"),
        ("\x00" * 250_000, "'" + r"\x00" * 24 + "\\…'"),
    ],
)
def test_quoted_text_has_at_most_100_characters(text: str, shown: str) -> None:
    assert errors.quoted(text) == shown
    assert len(shown) <= errors.TEXT_CHARS


def test_text_of_more_than_100_characters_is_cut() -> None:
    assert errors.cut("x" * 100) == "x" * 100
    assert errors.cut("x" * 101) == "x" * 99 + "…"


@pytest.mark.parametrize("make", [errors.BadPayload, lambda reason: error(400, reason)])
def test_reason_of_an_error_has_at_most_500_characters(make: Callable[[str], PlenaryError]) -> None:
    made = make("x" * 250_000)
    assert len(made.reason) == len(str(made)) == errors.REASON_CHARS
