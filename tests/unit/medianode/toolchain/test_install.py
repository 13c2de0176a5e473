"""The engine is searched for in an order, and its absence is explained."""

import os
from pathlib import Path

import pytest

from medianode.engines.mediasoup.version import VERSION
from medianode.toolchain import install
from medianode.toolchain.engine_folder import PATCHES as PATCHES_FILE
from medianode.toolchain.engine_folder import patches_of, schema_folder
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.patches import PATCHES
from medianode.toolchain.progress import Report


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("PLENARY_MEDIASOUP_WORKER", raising=False)
    monkeypatch.delenv("PLENARY_ENGINE_FROM_SOURCE", raising=False)
    monkeypatch.setenv("PLENARY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def engines_are_files_that_say_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real check starts the engine; `test_engine_folder.py` has its tests."""

    def check(binary: Path) -> None:
        if not binary.is_file() or binary.read_text() != "usable":
            raise EngineUnavailable(f"{binary.name} does not start")

    monkeypatch.setattr(install, "check_engine", check)


def engine(path: Path, text: str = "usable") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def build_makes(monkeypatch: pytest.MonkeyPatch, text: str = "usable") -> None:
    """No prebuilt engine is there, and a build makes one with schemas beside it."""

    def build(folder: Path, report: Report) -> Path:
        engine(folder / "engine" / "fbs" / "message.fbs", "schema")
        engine(folder / "engine" / PATCHES_FILE, "".join(f"{patch.label}\n" for patch in PATCHES))
        return engine(folder / "engine" / "mediasoup-worker", text)

    monkeypatch.setattr(install, "prebuilt", lambda folder, report: None)
    monkeypatch.setattr(install, "build", build)


def test_configured_engine_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(install.cached_binary())
    monkeypatch.setenv("PLENARY_MEDIASOUP_WORKER", str(engine(tmp_path / "of the environment")))
    mine = engine(tmp_path / "mine")
    assert install.find_engine(str(mine)) == mine


def test_engine_named_by_the_environment_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(install.cached_binary())
    mine = engine(tmp_path / "mine")
    monkeypatch.setenv("PLENARY_MEDIASOUP_WORKER", str(mine))
    assert install.find_engine() == mine


def test_configured_engine_that_is_unusable_is_an_error(tmp_path: Path) -> None:
    engine(install.cached_binary())
    with pytest.raises(EngineUnavailable, match=rf"/broken is not a usable .* {VERSION}: broken does not start"):
        install.find_engine(str(engine(tmp_path / "broken", "unusable")))


def test_cache_is_keyed_by_version_and_machine(cache: Path, report: Report) -> None:
    cached = engine(install.cached_binary())
    assert cached.parent.parent == cache
    assert cached.parent.name == f"mediasoup-worker-{VERSION}-linux-{os.uname().machine}"
    assert install.ensure_engine(report=report) == cached


def test_engine_of_an_earlier_version_in_the_cache_is_left_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    build_makes(monkeypatch)
    old = engine(cache / f"mediasoup-worker-3.12.16-linux-{os.uname().machine}")
    assert install.find_engine() is None
    install.ensure_engine(report=report)
    assert old.read_text() == "usable"


def test_built_engine_appears_in_the_cache_as_a_whole(
    cache: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    build_makes(monkeypatch)
    engine(cache / "build-interrupted" / "mediasoup-worker")
    built = install.ensure_engine(report=report)
    assert built == install.cached_binary()
    assert (schema_folder(built) / "message.fbs").read_text() == "schema"
    assert {path.name for path in cache.iterdir()} == {built.parent.name, "engine.lock"}


def test_unusable_engine_in_the_cache_is_replaced(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    build_makes(monkeypatch)
    cached = engine(install.cached_binary(), "unusable")
    leftover = engine(cached.parent / "leftover")
    assert install.ensure_engine(report=report).read_text() == "usable"
    assert not leftover.exists()


def test_engine_built_with_other_patches_is_replaced(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    build_makes(monkeypatch)
    built = install.ensure_engine(report=report)
    assert install.find_engine() == built
    (built.parent / PATCHES_FILE).write_text("of an earlier version (0123456789ab)\n")
    assert install.find_engine() is None
    assert patches_of(install.ensure_engine(report=report)) == [patch.label for patch in PATCHES]
    assert install.find_engine() == built


def test_prebuilt_engine_in_the_cache_is_kept_unless_a_build_is_wanted(
    monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    build_makes(monkeypatch)
    cached = engine(install.cached_binary())
    assert install.ensure_engine(report=report) == cached
    assert patches_of(cached) == []
    monkeypatch.setenv("PLENARY_ENGINE_FROM_SOURCE", "1")
    assert install.find_engine() is None
    assert patches_of(install.ensure_engine(report=report)) != []


def test_build_without_a_usable_engine_leaves_no_files(
    cache: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    build_makes(monkeypatch, "unusable")
    with pytest.raises(EngineUnavailable, match="made but is unusable: mediasoup-worker does not start"):
        install.ensure_engine(report=report)
    assert {path.name for path in cache.iterdir()} == {"engine.lock"}


def test_prebuilt_engine_is_taken_before_a_build(monkeypatch: pytest.MonkeyPatch, report: Report) -> None:
    build_makes(monkeypatch)
    monkeypatch.setattr(install, "prebuilt", lambda folder, report: engine(folder / "prebuilt" / "mediasoup-worker"))
    built = install.ensure_engine(report=report)
    assert not (built.parent / "fbs").exists()


NPM = """#!/bin/sh
[ "$1" = install ] || exit 1
package="$5/node_modules/mediasoup"
mkdir -p "$package/worker/out/Release" "$package/worker/fbs" "$package/worker/deps/libwebrtc" \\
  "$package/worker/src/RTC/SCTP" "$package/worker/src/Utils"
for file in LICENSE worker/deps/libwebrtc/LICENSE worker/deps/libwebrtc/PATENTS worker/src/RTC/SCTP/LICENSE \\
  worker/src/Utils/README_BASE64_UTILS worker/fbs/message.fbs; do echo "$6" >"$package/$file"; done
printf %s "$MADE" >"$package/worker/out/Release/mediasoup-worker"
"""


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = engine(tmp_path / "bin" / "npm", NPM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(install, "_reachable", lambda: True)


@pytest.mark.usefixtures("npm")
def test_prebuilt_engine_is_put_into_a_folder_with_its_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.setenv("MADE", "usable")
    binary = install.prebuilt(tmp_path, report)
    assert binary == tmp_path / "engine" / "mediasoup-worker"
    assert (schema_folder(binary) / "message.fbs").read_text() == f"mediasoup@{VERSION}\n"
    assert (binary.parent / "LICENSE").exists()


@pytest.mark.usefixtures("npm")
def test_prebuilt_engine_that_does_not_start_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.setenv("MADE", "unusable")
    assert install.prebuilt(tmp_path, report) is None


@pytest.mark.usefixtures("npm")
def test_prebuilt_engine_is_not_asked_for_where_its_server_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.setattr(install, "_reachable", lambda: False)
    assert install.prebuilt(tmp_path, report) is None
    assert not (tmp_path / "prebuilt").exists()


@pytest.mark.usefixtures("npm")
def test_prebuilt_engine_is_not_asked_for_if_a_build_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: Report
) -> None:
    monkeypatch.setattr(install, "_reachable", lambda: True)
    monkeypatch.setenv("PLENARY_ENGINE_FROM_SOURCE", "1")
    assert install.prebuilt(tmp_path, report) is None
    assert not (tmp_path / "prebuilt").exists()


def test_command_prints_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = engine(tmp_path / "mine")
    monkeypatch.setenv("PLENARY_MEDIASOUP_WORKER", str(mine))
    install.main()
    assert capsys.readouterr().out == f"{mine}\n"


def test_command_says_why_there_is_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLENARY_MEDIASOUP_WORKER", str(tmp_path / "absent"))
    with pytest.raises(SystemExit, match=r"No media engine: .*absent does not start"):
        install.main()
