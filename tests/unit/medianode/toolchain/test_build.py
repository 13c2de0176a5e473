"""The steps of a build: each is carried out in its turn, or explains why it cannot be."""

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medianode.engines.mediasoup.version import VERSION
from medianode.toolchain import build
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.progress import Report, Step


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been run."""
    run: list[list[str]] = []
    monkeypatch.setattr(build, "run", lambda command, *_, **__: run.append(list(command)))
    return run


def every_program_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


def test_missing_packages_are_named_when_they_cannot_be_installed(
    monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.setattr(build, "_is_installed", lambda package: package != "libuv1-dev")
    monkeypatch.setattr(build, "_root_prefix", lambda: None)
    every_program_is_there(monkeypatch)
    with pytest.raises(EngineUnavailable, match="apt-get install libuv1-dev"):
        build.install_packages(report)


def test_missing_packages_are_installed_by_root(
    monkeypatch: pytest.MonkeyPatch, commands: list[list[str]], report: Report
) -> None:
    monkeypatch.setattr(build, "_is_installed", lambda package: package != "flatbuffers-compiler")
    monkeypatch.setattr(build, "_root_prefix", lambda: ["sudo", "-n"])
    every_program_is_there(monkeypatch)
    build.install_packages(report)
    assert [command[:3] for command in commands] == [["sudo", "-n", "apt-get"]] * 2
    assert commands[1][-1] == "flatbuffers-compiler"


def test_system_without_debian_packages_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(EngineUnavailable, match=f"PLENARY_MEDIASOUP_WORKER .* {VERSION}"):
        build.install_packages(report)


def test_failed_step_reports_the_end_of_its_output() -> None:
    with pytest.raises(EngineUnavailable, match=r"it broke \(sh exited with 3\):\nlast words"):
        build.run(["sh", "-c", "echo last words; exit 3"], "it broke")
    with pytest.raises(EngineUnavailable, match="it broke"):
        build.run(["/no/such/program"], "it broke")


def test_tools_and_what_the_client_needs_come_into_one_environment(commands: list[list[str]], tmp_path: Path) -> None:
    assert build.install_tools(tmp_path) == tmp_path / "bin"
    assert commands[1][0] == str(tmp_path / "bin" / "pip")
    assert {"meson>=1.1,<2", "ninja>=1.10,<2", *build.CLIENT_LIBRARIES} <= set(commands[1])


@pytest.mark.usefixtures("commands")
def test_source_with_another_digest_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"mediasoup-{VERSION}.tgz").write_bytes(b"something else")
    with pytest.raises(EngineUnavailable, match="not the package"):
        build.fetch(tmp_path)


@pytest.mark.usefixtures("commands")
def test_source_with_the_known_digest_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tarball = tmp_path / f"mediasoup-{VERSION}.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/worker/meson.build"), io.BytesIO())
    monkeypatch.setattr(build, "SHA512", hashlib.sha512(tarball.read_bytes()).hexdigest())
    package = build.unpack(build.fetch(tmp_path), tmp_path)
    assert package == tmp_path / "package"
    assert (package / "worker" / "meson.build").exists()


@pytest.mark.parametrize("sanitize", [False, True])
def test_engine_is_configured_with_its_own_bandwidth_estimation(
    sanitize: bool, commands: list[list[str]], tmp_path: Path
) -> None:
    build.configure(tmp_path, tmp_path, sanitize=sanitize)
    [command] = commands
    assert ("-Db_sanitize=address" in command) == sanitize
    assert "--wrap-mode=nodownload" in command
    assert not [argument for argument in command if "ms_use_builtin_bwe" in argument]


@pytest.mark.parametrize("sanitize", [False, True])
def test_headers_of_the_schemas_are_made_before_the_engine(
    sanitize: bool, commands: list[list[str]], tmp_path: Path
) -> None:
    binary = build.compile_worker(tmp_path, tmp_path, Step("compile"), sanitize=sanitize)
    assert [command[-1] for command in commands[:2]] == ["fbs/FBS/message.h", "mediasoup-worker"]
    assert commands[2:] == ([] if sanitize else [["strip", str(binary)]])


def test_compiling_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, int]] = []

    def run(command: list[str], *_: object, on_line: Callable[[str], None] | None = None, **__: object) -> None:
        if on_line:
            on_line("[3/260] Compiling C++ object\n")
            on_line("a warning\n")
            on_line("[4/260] Compiling C++ object\n")

    monkeypatch.setattr(build, "run", run)
    step = Step("compile")
    monkeypatch.setattr(step, "advance", lambda *done: shown.append(done))
    build.compile_worker(tmp_path, tmp_path, step, sanitize=False)
    assert shown == [(3, 260), (4, 260)]


def test_client_that_cannot_connect_makes_the_build_fail(tmp_path: Path, schemas: Path) -> None:
    """The interpreter of the tools runs the check; what it prints is the reason."""
    interpreter = tmp_path / "bin" / "python"
    interpreter.parent.mkdir()
    interpreter.write_text('#!/bin/sh\necho "$@" "$PYTHONPATH"\necho the engine was ended by signal 11 >&2\nexit 1\n')
    interpreter.chmod(0o755)
    binary = schemas.parent / "mediasoup-worker"
    with pytest.raises(EngineUnavailable) as caught:
        build.connect_client(binary, interpreter.parent)
    reason = caught.value.reason
    assert reason.startswith("the engine was built, but no client could connect to it")
    assert f"-m medianode.toolchain.handshake {binary} {schemas} {Path(build.__file__).parents[2]}" in reason
    assert reason.rstrip().endswith("the engine was ended by signal 11")


def test_build_takes_its_steps_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    done: list[str] = []

    def step(name: str, result: Any = None) -> Callable[..., Any]:
        def carry_out(*_: object, **__: object) -> Any:
            done.append(name)
            return result

        return carry_out

    class Patch:
        label = "a patch"
        apply = step("patch")

    results = {"install_tools": tmp_path, "unpack": tmp_path, "assemble": tmp_path / "mediasoup-worker"}
    for name in (
        "install_packages", "install_tools", "fetch", "unpack", "replace_subprojects", "configure", "compile_worker",
        "assemble", "connect_client",
    ):  # fmt: skip
        monkeypatch.setattr(build, name, step(name, results.get(name)))
    monkeypatch.setattr(build, "PATCHES", (Patch(), Patch()))
    assert build.build(tmp_path, report) == tmp_path / "mediasoup-worker"
    assert done == [
        "install_packages", "install_tools", "fetch", "unpack", "patch", "patch", "replace_subprojects", "configure",
        "compile_worker", "assemble", "connect_client",
    ]  # fmt: skip


@pytest.mark.parametrize("sanitize", [False, True])
def test_command_builds_into_the_given_folder(
    sanitize: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def make(folder: Path, report: Report, *, sanitize: bool) -> Path:
        asked.append(sanitize)
        return folder / "engine"

    monkeypatch.setattr(build, "build", make)
    arguments = [str(tmp_path / "new" / "folder"), *(["--sanitize"] if sanitize else [])]
    monkeypatch.setattr("sys.argv", ["build", *arguments])
    build.main()
    assert asked == [sanitize]
    assert capsys.readouterr().out == f"{tmp_path}/new/folder/engine\n"


def test_command_says_why_there_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise EngineUnavailable("a reason")

    monkeypatch.setattr(build, "build", fail)
    monkeypatch.setattr("sys.argv", ["build", str(tmp_path)])
    with pytest.raises(SystemExit, match="No media engine: a reason"):
        build.main()
