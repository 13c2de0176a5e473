"""Runs Redis and RabbitMQ as private processes, each with a folder, ports and a name of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from devtools.guard import GUARD
from devtools.probes import rabbitmq_answers, redis_answers
from devtools.starting import (
    START_WITHIN,
    PortTaken,
    StartFailed,
    Unavailable,
    on_free_ports,
    random_port,
    wait_until,
)

STOP_WITHIN: Final = 20.0
REDIS_OPTIONS: Final = (
    *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"),
)
RABBITMQ_BIN: Final = Path("/usr/lib/rabbitmq/bin")
_LAST_OUTPUT: Final = 4000
"""Characters of a failed server's output that its error repeats."""


class ServerProcess(ABC):
    """A private server. Its port and `url` are known once it has started."""

    killable = True

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"plenary-{name}-"))
        self.port = 0
        self.url = ""
        self._name = name
        self._output = self.folder / "output"
        self._output_before = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id; 0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    @abstractmethod
    def _choose_ports(self) -> None:
        """Sets `port`, `url` and everything that depends on them."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    @abstractmethod
    def _answers(self) -> bool: ...

    def start(self) -> None:
        on_free_ports(self._start_anew)

    def _start_anew(self) -> None:
        self._choose_ports()
        self._launch()

    def _launch(self) -> None:
        """Starts the server. Ends it and raises `PortTaken` or `StartFailed` if it does not answer."""
        self._output_before = self._output.stat().st_size if self._output.exists() else 0
        try:
            process = self._process = self._spawn(self._command())
            wait_until(
                lambda: listens(process, self.port) and self._answers(),
                self._last_output,
                lambda: process.poll() is not None,
            )
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        self._end(self._process, signal.SIGTERM)
        self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        self._end(self._process, signal.SIGKILL)
        self._process = None

    def restart(self) -> None:
        """Starts the server again on the same port, which its users know."""
        self.kill()
        self._launch()

    def pause(self) -> None:
        """Stops the server by SIGSTOP. Returns when all its threads have stopped: until then it may answer."""
        assert self._process is not None, f"{self._name} does not run"
        self._signal(signal.SIGSTOP)
        while not is_stopped(self._process.pid):
            time.sleep(0.001)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def ctl(self, *args: str) -> str:
        raise Unavailable(f"{self._name} has no rabbitmqctl")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self._name} does not run"
        os.kill(self._process.pid, number)

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._output.open("ab") as output:
            process = subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        GUARD.watch(process.pid)
        return process

    def _last_output(self) -> str:
        """Returns the end of the server's output since it was last started."""
        said = self._output.read_bytes()[self._output_before :]
        return f"{self._name} said:\n{said.decode(errors='replace')[-_LAST_OUTPUT:]}"

    @staticmethod
    def _end(process: subprocess.Popen[bytes] | None, number: signal.Signals) -> None:
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_WITHIN)


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped each thread of the process, or it has ended."""
    states = []
    for thread in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            states.append(thread.read_text().rpartition(")")[2].split()[0])
    return all(state in "TtZX" for state in states)


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this process has the port: another process's server would answer as well."""
    try:
        sockets = psutil.Process(process.pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(it.status == psutil.CONN_LISTEN and getattr(it.laddr, "port", 0) == port for it in sockets)


class RedisProcess(ServerProcess):
    def __init__(self) -> None:
        super().__init__("redis")

    def _choose_ports(self) -> None:
        self.port = random_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        return ["redis-server", *where, *REDIS_OPTIONS]

    def _answers(self) -> bool:
        return redis_answers(self.url)


class RabbitmqProcess(ServerProcess):
    """A broker apart from any system-wide one, with a node name, ports, a cookie and an epmd of its own."""

    def __init__(self) -> None:
        super().__init__("rabbitmq")
        self._epmd_port = 0
        self._dist_port = 0
        self._epmd: subprocess.Popen[bytes] | None = None

    def _choose_ports(self) -> None:
        self.port, self._dist_port, self._epmd_port = random_port(), random_port(), random_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def _command(self) -> list[str]:
        # The wrappers in /usr/sbin insist on user rabbitmq when run as root; the scripts that they call do not.
        return [str(RABBITMQ_BIN / "rabbitmq-server")]

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            **os.environ,
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": f"plenary-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            # The script then becomes the server instead of its parent, so that a signal reaches it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _start_anew(self) -> None:
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("disk_free_limit.absolute = 1MB\n")
        self._choose_ports()
        try:
            self._start_epmd()
            self._launch()
        except BaseException:
            self._stop_epmd()
            raise

    def _start_epmd(self) -> None:
        command = ["epmd", "-address", "127.0.0.1", "-port", str(self._epmd_port)]
        epmd = self._epmd = self._spawn(command)
        try:
            wait_until(lambda: listens(epmd, self._epmd_port), self._last_output, lambda: epmd.poll() is not None)
        except StartFailed as failed:  # epmd ends without a message if its port is taken
            raise PortTaken(f"epmd at port {self._epmd_port}: {failed}") from None

    def _stop_epmd(self) -> None:
        self._end(self._epmd, signal.SIGTERM)
        self._epmd = None

    def stop(self) -> None:
        self._end(self._process, signal.SIGTERM)
        self._process = None
        self._stop_epmd()
        super().stop()

    def log_tail(self) -> str:
        """Returns the end of RabbitMQ's log, for a failure that may be its own."""
        logs = [path.read_text(errors="replace") for path in sorted((self.folder / "log").glob("*.log"))]
        return "\n".join(log[-_LAST_OUTPUT:] for log in logs)

    def ctl(self, *args: str) -> str:
        done = subprocess.run(
            [str(RABBITMQ_BIN / "rabbitmqctl"), "--quiet", *args],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=START_WITHIN,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr or done.stdout)
        return done.stdout

    def _answers(self) -> bool:
        return rabbitmq_answers(self.url)
