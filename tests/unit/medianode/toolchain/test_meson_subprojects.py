"""The subprojects that stand in for what meson would download."""

import shutil
import subprocess
from pathlib import Path

import pytest

from medianode.toolchain.meson_subprojects import SYSTEM_SUBPROJECTS, SystemSubproject, replace_subprojects


def test_subprojects_replace_everything_that_would_be_downloaded(tmp_path: Path) -> None:
    for name in ("openssl", "catch2", "unordered-dense"):
        (tmp_path / f"{name}.wrap").touch()
    replace_subprojects(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {subproject.name for subproject in SYSTEM_SUBPROJECTS}
    for subproject in SYSTEM_SUBPROJECTS:
        assert (tmp_path / subproject.name / "meson.build").read_text().startswith(f"project('{subproject.name}'")


def test_dependencies_libraries_and_options_are_declared(tmp_path: Path) -> None:
    SystemSubproject("a", {"a_dep": ("x", "y")}, libraries=("a_lib",), options={"tests": "no"}).write(tmp_path)
    assert (tmp_path / "a" / "meson.build").read_text() == (
        "project('a', 'c')\n"
        "a_dep = declare_dependency(dependencies: [dependency('x'), dependency('y')])\n"
        "a_lib = static_library('empty_a_lib', 'empty.c')\n"
    )
    assert (tmp_path / "a" / "meson_options.txt").read_text() == "option('tests', type: 'string', value: 'no')\n"
    assert (tmp_path / "a" / "empty.c").exists()


def test_headers_only_dependency_is_not_linked() -> None:
    text = SystemSubproject("a", {"a_dep": ("x",)}, headers_only=True).meson_build()
    assert "dependency('x').partial_dependency(compile_args: true, includes: true)" in text


def test_overridden_dependency_is_found_by_its_name() -> None:
    text = SystemSubproject("a", {"a_dep": ()}, overrides="b").meson_build()
    assert "meson.override_dependency('b', a_dep)" in text


@pytest.mark.parametrize(
    ("subproject", "included"), [("libsrtp3", "srtp.h"), ("unordered_dense", "ankerl/unordered_dense.h")]
)
def test_own_header_is_included_from_its_subproject(subproject: str, included: str, tmp_path: Path) -> None:
    replace_subprojects(tmp_path)
    assert "include_directories('include')" in (tmp_path / subproject / "meson.build").read_text()
    assert "#pragma once" in (tmp_path / subproject / "include" / included).read_text()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_map_and_set_take_a_hash_of_their_own(tmp_path: Path) -> None:
    replace_subprojects(tmp_path)
    (tmp_path / "use.cpp").write_text("""
#include <ankerl/unordered_dense.h>
struct Hash { auto operator()(int value) const { return ankerl::unordered_dense::hash<int>{}(value); } };
ankerl::unordered_dense::map<int, int, Hash> map{ { 1, 2 } };
ankerl::unordered_dense::set<int> set{ 1 };
""")
    include = tmp_path / "unordered_dense" / "include"
    command = [
        "g++",
        "-std=c++20",
        "-fsyntax-only",
        "-Wall",
        "-Werror",
        "-I",
        str(include),
        str(tmp_path / "use.cpp"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
