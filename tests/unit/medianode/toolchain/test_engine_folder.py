"""The engine's folder: what it holds, where the schemas are found, which engines are refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medianode.engines.mediasoup.version import VERSION
from medianode.toolchain import engine_folder
from medianode.toolchain.engine_folder import assemble, check_engine, schema_folder, schemas_digest
from medianode.toolchain.errors import EngineUnavailable

LICENCES = {"LICENSE", "LICENSE.libwebrtc", "PATENTS.libwebrtc", "LICENSE.sctp", "LICENSE.base64"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What of mediasoup's npm package is in an engine's folder, with something that is not."""
    package = tmp_path / "package"
    for file in engine_folder._LICENCES:
        path = package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    fbs = package / "worker" / "fbs"
    fbs.mkdir()
    for name in ("message.fbs", "worker.fbs", "meson.build"):
        (fbs / name).write_text(name)
    return package


def made(package: Path, tmp_path: Path) -> Path:
    binary = tmp_path / "out"
    binary.write_text("engine")
    return assemble(package, binary, tmp_path / "engine")


def test_folder_holds_binary_schemas_and_licences(package: Path, tmp_path: Path) -> None:
    binary = made(package, tmp_path)
    assert binary == tmp_path / "engine" / "mediasoup-worker"
    assert binary.read_text() == "engine"
    assert {path.name for path in binary.parent.iterdir()} == {"mediasoup-worker", "fbs", *LICENCES}
    assert {path.name for path in (binary.parent / "fbs").iterdir()} == {"message.fbs", "worker.fbs"}
    assert (binary.parent / "LICENSE.sctp").read_text() == "worker/src/RTC/SCTP/LICENSE"


def test_folder_lists_the_patches_of_its_binary_if_there_are_any(package: Path, tmp_path: Path) -> None:
    assert engine_folder.patches_of(made(package, tmp_path)) == []
    (tmp_path / "worker").write_text("engine")
    binary = engine_folder.assemble(package, tmp_path / "worker", tmp_path / "patched", patches=["one", "two"])
    assert engine_folder.patches_of(binary) == ["one", "two"]
    assert (binary.parent / engine_folder.PATCHES).read_text() == "one\ntwo\n"


def test_folder_can_be_read_by_everybody(package: Path, tmp_path: Path) -> None:
    (package / "LICENSE").chmod(0o600)
    binary = made(package, tmp_path)
    for path in (binary.parent, *binary.parent.rglob("*")):
        executable = path.is_dir() or path == binary
        assert path.stat().st_mode & 0o777 == (0o755 if executable else 0o644), path


def test_package_without_a_licence_is_refused(package: Path, tmp_path: Path) -> None:
    (package / "LICENSE").unlink()
    with pytest.raises(EngineUnavailable, match=r"not as expected: .*LICENSE"):
        made(package, tmp_path)


def test_schemas_beside_the_binary_are_found(schemas: Path) -> None:
    assert schema_folder(schemas.parent / "mediasoup-worker") == schemas


def test_schemas_in_the_layout_of_npm_are_found(schemas: Path) -> None:
    assert schema_folder(schemas.parent / "out" / "Release" / "mediasoup-worker") == schemas


def test_schemas_are_found_by_a_link_to_the_binary(schemas: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(schemas.parent / "mediasoup-worker")
    assert schema_folder(tmp_path / "link") == schemas


def test_missing_schemas_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        schema_folder(tmp_path / "mediasoup-worker")
    assert f"mediasoup@{VERSION}" in caught.value.reason
    assert str(tmp_path / "fbs") in caught.value.reason


def test_digest_depends_on_names_and_contents_of_the_schemas(tmp_path: Path) -> None:
    digests = set()
    for name, text in (("a.fbs", "x"), ("b.fbs", "x"), ("b.fbs", "y"), ("c.fbs", "y"), ("c.txt", "y")):
        (tmp_path / name).write_text(text)
        digests.add(schemas_digest(tmp_path))
    assert len(digests) == 4


def test_engine_of_the_version_is_accepted(engine: Callable[[str], Path]) -> None:
    check_engine(engine("run(); ask()"))


def test_engine_that_does_not_start_is_refused(shell_engine: Callable[[str], Path]) -> None:
    with pytest.raises(EngineUnavailable, match="ended with code 127"):
        check_engine(shell_engine("exit 127"))


def test_schemas_of_another_version_are_refused(shell_engine: Callable[[str], Path], schemas: Path) -> None:
    binary = shell_engine("echo started >&2")
    (schemas / "message.fbs").write_text("// of another version\n")
    with pytest.raises(EngineUnavailable, match=f"not those of mediasoup {VERSION}"):
        check_engine(binary)


@pytest.mark.parametrize("text", [None, "not executable"])
def test_file_that_is_not_executable_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "mediasoup-worker"
    if text:
        path.write_text(text)
    with pytest.raises(EngineUnavailable, match="not an executable file"):
        check_engine(path)
    with pytest.raises(EngineUnavailable, match="not an executable file"):
        check_engine(tmp_path)
