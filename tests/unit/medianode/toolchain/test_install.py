"""The engine's binary is searched for in an order, and its absence is explained."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from medianode.toolchain import build, install
from medianode.toolchain.build import EngineUnavailable
from medianode.toolchain.meson_subprojects import SYSTEM_SUBPROJECTS
from medianode.toolchain.progress import Report


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PLENARY_MEDIASOUP_WORKER", raising=False)
    monkeypatch.setenv("PLENARY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def program(path: Path, exit_code: int = 41) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(0o755)
    return path


def quiet() -> Report:
    return Report(Console(file=io.StringIO()))


def test_configured_binary_wins(tmp_path: Path) -> None:
    program(install.cached_binary())
    mine = program(tmp_path / "mine")
    assert install.find_engine(str(mine)) == mine


def test_binary_named_by_the_environment_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = program(tmp_path / "mine")
    monkeypatch.setenv("PLENARY_MEDIASOUP_WORKER", str(mine))
    assert install.find_engine() == mine


def test_configured_binary_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="broken"):
        install.find_engine(str(program(tmp_path / "broken", exit_code=127)))


def test_cache_is_keyed_by_version_and_machine(cache: Path) -> None:
    cached = program(install.cached_binary())
    assert cached.parent == cache
    assert build.VERSION in cached.name
    assert os.uname().machine in cached.name
    assert install.ensure_engine(report=quiet()) == cached


def test_built_engine_appears_in_the_cache_as_a_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "prebuilt", lambda folder, report: None)
    monkeypatch.setattr(install, "build", lambda folder, report: program(folder / "out" / "worker"))
    (cache / "build-interrupted").mkdir(parents=True)
    assert install.ensure_engine(report=quiet()) == install.cached_binary()
    assert {p.name for p in cache.iterdir()} == {install.cached_binary().name, "engine.lock"}


def test_build_without_a_usable_engine_leaves_no_files(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "prebuilt", lambda folder, report: None)
    monkeypatch.setattr(install, "build", lambda folder, report: program(folder / "worker", exit_code=127))
    with pytest.raises(EngineUnavailable, match="does not start"):
        install.ensure_engine(report=quiet())
    assert not install.cached_binary().exists()


def test_missing_packages_are_named_when_they_cannot_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_is_installed", lambda package: package != "libuv1-dev")
    monkeypatch.setattr(build, "_root_prefix", lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(EngineUnavailable, match="apt-get install libuv1-dev"):
        build.install_packages(quiet())


def test_missing_packages_are_installed_by_root(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(build, "_is_installed", lambda package: package != "g++")
    monkeypatch.setattr(build, "_root_prefix", lambda: ["sudo", "-n"])
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(build, "run", lambda command, failure_text, env: commands.append(command))
    build.install_packages(quiet())
    assert [command[:3] for command in commands] == [["sudo", "-n", "apt-get"]] * 2
    assert commands[1][-1] == "g++"


def test_failed_step_reports_the_end_of_its_output() -> None:
    with pytest.raises(EngineUnavailable, match=r"it broke \(sh exited with 3\):\nlast words"):
        build.run(["sh", "-c", "echo last words; exit 3"], "it broke")
    with pytest.raises(EngineUnavailable, match="it broke"):
        build.run(["/no/such/program"], "it broke")


def test_foreign_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"mediasoup-{build.VERSION}.tgz").write_bytes(b"something else")
    monkeypatch.setattr(build, "run", lambda *_, **__: None)
    with pytest.raises(EngineUnavailable, match="not the package"):
        build.fetch(tmp_path)


def test_plain_progress_is_a_line_every_tenth() -> None:
    out = io.StringIO()
    with Report(Console(file=out, width=200)).step("Compile") as step:
        for done in range(1, 101):
            step.advance(done, 100)
    lines = out.getvalue().splitlines()
    assert lines[0] == "Compile"
    assert lines[1] == "Compile: 10% (10/100)"
    assert len(lines) == 11


def test_system_subprojects_replace_the_wrap_files(tmp_path: Path) -> None:
    for subproject in SYSTEM_SUBPROJECTS:
        (tmp_path / f"{subproject.name}.wrap").touch()
        subproject.write(tmp_path)
        assert (tmp_path / subproject.name / "meson.build").read_text().startswith(f"project('{subproject.name}'")
    assert not list(tmp_path.glob("*.wrap"))


def test_command_prints_the_path(tmp_path: Path) -> None:
    mine = program(tmp_path / "mine")
    done = subprocess.run(
        [sys.executable, "-m", "medianode.toolchain.install"],
        env={**os.environ, "PLENARY_MEDIASOUP_WORKER": str(mine)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{mine}\n"
