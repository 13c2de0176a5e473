"""Patches change the engine's source exactly where they were made for, or refuse it."""

from dataclasses import replace
from pathlib import Path

import pytest

from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.patches import PATCHES, Patch

PATCH = Patch("a name", "src/file.cpp", old="if (a == b)", new="if (a != b)", reason="It was wrong.")


def source(worker: Path, text: str) -> Path:
    path = worker / PATCH.file
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_patch_replaces_the_text_and_nothing_else(tmp_path: Path) -> None:
    path = source(tmp_path, "// é\nif (a == b)\n\treturn;\n")
    PATCH.apply(tmp_path)
    assert path.read_text() == "// é\nif (a != b)\n\treturn;\n"


@pytest.mark.parametrize(("text", "times"), [("if (a==b)", 0), ("if (a == b) if (a == b)", 2)])
def test_patch_refuses_a_source_where_the_text_is_not_there_once(text: str, times: int, tmp_path: Path) -> None:
    path = source(tmp_path, text)
    with pytest.raises(EngineUnavailable, match=rf"patch 'a name' does not fit src/file\.cpp .* there {times} times"):
        PATCH.apply(tmp_path)
    assert path.read_text() == text


def test_patch_applied_twice_is_refused(tmp_path: Path) -> None:
    source(tmp_path, PATCH.old)
    PATCH.apply(tmp_path)
    with pytest.raises(EngineUnavailable, match="there 0 times"):
        PATCH.apply(tmp_path)


def test_patch_of_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"patch 'a name' .*No such file"):
        PATCH.apply(tmp_path)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_patch_cannot_be_applied_to_its_own_result(patch: Patch) -> None:
    assert patch.old not in patch.new
    assert patch.reason


def test_patches_have_different_names() -> None:
    assert len({patch.name for patch in PATCHES}) == len(PATCHES)


def test_label_changes_with_what_the_patch_does() -> None:
    changed = [replace(PATCH, file="src/other.cpp"), replace(PATCH, old="other"), replace(PATCH, new="other")]
    assert len({patch.label for patch in (PATCH, *changed)}) == 4
    assert replace(PATCH, reason="Another.").label == PATCH.label
