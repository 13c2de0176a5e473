"""Starts an engine and speaks with it over its channel, one request at a time. Nothing here is asynchronous."""

import os
import select
import signal
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import IO, Any, Self, TypeAlias

from medianode.engines.mediasoup.flatbuffers_codec import DecodeError, load_schema
from medianode.engines.mediasoup.spawn import spawn
from medianode.engines.mediasoup.version import VERSION
from medianode.toolchain.errors import EngineUnavailable

Body: TypeAlias = tuple[str, dict[str, Any]]

_MESSAGE = "FBS.Message.Message"
_LENGTH = Struct("<I")
_MAX_FRAME = 8 * 1024 * 1024
_TIMEOUT = 10.0
_EXIT_TIMEOUT = 1.0
_SHOWN_OUTPUT = 2000


class StartedEngine:
    """An engine process, used as a context manager: it runs inside, and is killed at the end.

    Each method, and entering, raises `EngineUnavailable` if the engine does not start, does not answer within 10 s,
    has ended, refuses a request, or sends what the schemas do not describe.
    """

    def __init__(self, binary: Path, schemas: Path, arguments: Sequence[str] = ("--logLevel=none",)) -> None:
        self._binary = binary
        self._schema = load_schema(schemas)
        self._arguments = arguments
        self._received = bytearray()
        self._notifications: list[dict[str, Any]] = []
        self._last_id = 0
        self.pid = 0

    def __enter__(self) -> Self:
        self._output: IO[bytes] = tempfile.TemporaryFile()
        (self._writer, theirs_3), (self._reader, theirs_4) = socket.socketpair(), socket.socketpair()
        try:
            self.pid = spawn(self._binary, self._arguments, [theirs_3, theirs_4], self._output.fileno())
        except OSError as error:
            self._close_files()
            raise EngineUnavailable(f"{self._binary} cannot be started: {error}") from error
        finally:
            theirs_3.close()
            theirs_4.close()
        try:
            running = self.wait_for("WORKER_RUNNING")
            if running["handler_id"] != str(self.pid):
                raise self._nonsense("the first message names another process")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self._close_files()

    def _close_files(self) -> None:
        self._writer.close()
        self._reader.close()
        self._output.close()

    def request(self, method: str, handler_id: str = "", body: Body | None = None) -> dict[str, Any]:
        """Sends a request and returns the body of its answer, {} if it has none."""
        self._last_id += 1
        request: dict[str, Any] = {"id": self._last_id, "method": method, "handler_id": handler_id}
        if body:
            request["body"] = body
        try:
            self._writer.settimeout(_TIMEOUT)
            self._writer.sendall(self._schema.encode(_MESSAGE, {"data": ("Request", request)}))
        except OSError as error:
            raise self._ended() from error
        deadline = time.monotonic() + _TIMEOUT
        while True:
            kind, answer = self._next_message(deadline, f"did not answer {method}")
            if kind == "Notification":
                self._notifications.append(answer)
            elif kind == "Response" and answer["id"] == self._last_id:
                if not answer.get("accepted"):
                    raise EngineUnavailable(f"the engine refuses {method}: {answer.get('reason', '')}")
                result: dict[str, Any] = answer["body"][1] if "body" in answer else {}
                return result

    def wait_for(self, event: str, handler_id: str = "", **fields: object) -> dict[str, Any]:
        """Returns the next notification of this event, from `handler_id` if given, whose body has these fields."""
        deadline = time.monotonic() + _TIMEOUT

        def matches(notification: dict[str, Any]) -> bool:
            body: Mapping[str, Any] = notification["body"][1] if "body" in notification else {}
            return (
                notification["event"] == event
                and handler_id in ("", notification["handler_id"])
                and fields.items() <= body.items()
            )

        while True:
            for at, notification in enumerate(self._notifications):
                if matches(notification):
                    return self._notifications.pop(at)
            kind, message = self._next_message(deadline, f"did not send {event}")
            if kind == "Notification":
                self._notifications.append(message)

    def _next_message(self, deadline: float, silence: str) -> tuple[str, dict[str, Any]]:
        frame = self._next_frame(deadline, silence)
        try:
            kind, message = self._schema.decode(_MESSAGE, frame)["data"]
        except DecodeError as error:
            raise self._nonsense(str(error)) from error
        return kind, message

    def _next_frame(self, deadline: float, silence: str) -> bytes:
        while True:
            if len(self._received) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._received)
                if length > _MAX_FRAME:
                    raise self._nonsense(f"a frame of {length} bytes")
                end = _LENGTH.size + length
                if len(self._received) >= end:
                    frame = bytes(self._received[_LENGTH.size : end])
                    del self._received[:end]
                    return frame
            self._reader.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._reader.recv(65_536)
            except TimeoutError as error:
                raise EngineUnavailable(f"{self._binary} {silence} within {_TIMEOUT:.0f} s") from error
            except OSError:
                data = b""
            if not data:
                raise self._ended()
            self._received += data

    def _ended(self) -> EngineUnavailable:
        """Waits for the end of a process that has closed its channel, and tells how it ended and what it printed."""
        ended = os.pidfd_open(self.pid)
        try:
            select.select([ended], [], [], _EXIT_TIMEOUT)
        finally:
            os.close(ended)
        os.kill(self.pid, signal.SIGKILL)  # without effect if it has ended
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        self._output.seek(0)
        printed = self._output.read().decode(errors="replace").strip()[-_SHOWN_OUTPUT:]
        return EngineUnavailable(f"{self._binary} {how}" + (f": {printed}" if printed else ""))

    def _nonsense(self, why: str) -> EngineUnavailable:
        return EngineUnavailable(f"{self._binary} does not speak as mediasoup-worker {VERSION} does: {why}")
