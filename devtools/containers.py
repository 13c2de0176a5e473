"""Runs servers in Docker containers."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence

from devtools.starting import failure, on_free_ports, random_port, wait_until


class Container:
    """A server in a container. Its port on this host stays the same when it is started again."""

    killable = True

    def __init__(
        self, image: str, port: int, url: str, answers: Callable[[str], bool], command: Sequence[str] = ()
    ) -> None:
        """`url` is a template with `{host}` and `{port}`."""
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        from testcontainers.core.container import DockerContainer

        self._container = DockerContainer(image)
        if command:
            self._container = self._container.with_command(list(command))
        self._inner_port = port
        self._template = url
        self._answers = answers
        self.url = ""

    def start(self) -> None:
        on_free_ports(self._start_anew)
        self._wait()

    def _start_anew(self) -> None:
        from docker.errors import APIError

        port = random_port()
        self._container.with_bind_ports(self._inner_port, port)
        try:
            self._container.start()
        except APIError as refused:
            if self._container.get_wrapped_container() is not None:
                self._container.stop()
            raise failure(str(refused)) from None
        self.url = self._template.format(host=self._container.get_container_host_ip(), port=port)

    def stop(self) -> None:
        self._container.stop()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        self._container.get_wrapped_container().restart(timeout=0)
        self._wait()

    def pause(self) -> None:
        self._container.get_wrapped_container().pause()

    def resume(self) -> None:
        self._container.get_wrapped_container().unpause()

    def ctl(self, *args: str) -> str:
        code, output = self._container.exec(["rabbitmqctl", "--quiet", *args])
        if code:
            raise RuntimeError(output.decode())
        return str(output.decode())

    def _wait(self) -> None:
        wait_until(lambda: self._answers(self.url), self._last_output, lambda: False)

    def _last_output(self) -> str:
        said: bytes = self._container.get_wrapped_container().logs(tail=30)
        return f"the container said:\n{said.decode(errors='replace')}"


@functools.cache
def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=3, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@functools.cache
def docker_has(image: str) -> bool:
    """Whether a Docker engine answers and has the image, or can pull it: not every engine reaches a registry."""
    if not docker_answers():
        return False

    def docker(*args: str, within: float) -> bool:
        try:
            return subprocess.run(["docker", *args], capture_output=True, timeout=within, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    return docker("image", "inspect", image, within=10) or docker("pull", "--quiet", image, within=300)
