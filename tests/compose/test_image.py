"""The contents of the image, and the user that it runs as."""

from tests.compose.stack import docker


def run(image: str, *command: str, entrypoint: str = "plenary") -> str:
    return docker("run", "--rm", "--network", "none", "--entrypoint", entrypoint, image, *command)


def test_image_runs_the_plenary_command(image: str) -> None:
    assert docker("run", "--rm", image, "--version").startswith("plenary ")
    assert "medianode" in docker("run", "--rm", image)


def test_image_does_not_run_as_root(image: str) -> None:
    assert run(image, "-u", entrypoint="id").strip() not in ("", "0")


def test_image_has_an_engine_that_starts(image: str) -> None:
    found = run(image, "-m", "medianode.toolchain.install", entrypoint="/opt/plenary/bin/python")
    assert found.strip() == "/opt/mediasoup-worker/mediasoup-worker"


def test_image_has_the_schemas_and_licences_of_the_engine(image: str) -> None:
    files = run(image, "/opt/mediasoup-worker", "/opt/mediasoup-worker/fbs", entrypoint="ls").split()
    assert {"fbs", "message.fbs", "LICENSE", "LICENSE.libwebrtc", "LICENSE.sctp", "LICENSE.base64"} <= set(files)
    assert "ISC License" in run(image, "/opt/mediasoup-worker/LICENSE", entrypoint="cat")


def test_image_has_licences_and_no_build_tools(image: str) -> None:
    assert "MIT License" in run(image, "/usr/share/doc/plenary/LICENSE", entrypoint="cat")
    assert "mediasoup" in run(image, "/usr/share/doc/plenary/THIRD_PARTY_NOTICES", entrypoint="cat")
    tools = run(image, "-c", "command -v gcc g++ node npm pip git || true", entrypoint="sh")
    assert tools == ""
