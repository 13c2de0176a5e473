"""Starts an engine process, exchanges messages with it over its channel, supervises and ends it.

Requests are pipelined: the engine answers them in the order they were written. Those of one turn of the event loop
leave in one write. Answers are passed to callbacks and not to futures, because a future's callback would run after
the notifications that followed the answer.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, cast

from medianode.engines.mediasoup.channel import (
    ChannelError,
    Decoder,
    LogLine,
    Notification,
    Response,
    encode_request,
)
from medianode.engines.mediasoup.flatbuffers_codec import EncodeError, Schema
from medianode.engines.mediasoup.spawn import spawn
from shared.errors import REASON_CHARS, cut
from shared.telemetry import log

MAX_PENDING = 20_000
"""Unanswered requests above which a further one is refused."""
MAX_UNSENT_BYTES = 32 * 1024 * 1024
"""Bytes that the channel has not taken, above which a further request is refused."""
TICK_SECONDS = 1.0
DEADLINE_TICKS = 5
"""Ticks of silence after which the engine is stuck. A suspension of machine or node counts as one tick."""
START_TIMEOUT_SECONDS = 10.0
STOP_TIMEOUT_SECONDS = 2.0

Answered: TypeAlias = Callable[[Response], None]
Notified: TypeAlias = Callable[[Notification], None]
Died: TypeAlias = Callable[[str], None]

NO_ANSWER = "NoAnswer"
BUSY = "Busy"
TOO_LONG = "TooLong"
UNFIT = "Unfit"
"""The request's data is not what the engine's schemas say."""


class EngineProcess:
    """An engine process. Call `start` first, then `request` at any time.

    `notified` gets each notification. `died` is called once, with a reason, if the process ends by itself.
    """

    def __init__(
        self, binary: Path, schema: Schema, arguments: Sequence[str], notified: Notified, died: Died
    ) -> None:
        self._binary = binary
        self._schema = schema
        self._arguments = arguments
        self._notified = notified
        self._died = died
        self._log = log.get("engine")
        self._pending: dict[int, tuple[Answered, int]] = {}
        self._last_number = 0
        self._ticks = 0
        self._silent_ticks = 0
        self._decoder = Decoder(schema)
        self._writer: asyncio.WriteTransport | None = None
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0
        self._transports: list[asyncio.BaseTransport] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._pidfd = -1
        self._closing = False
        self.pid = 0

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the engine says that it is running. Raises `OSError`, `TimeoutError` or `ChannelError`."""
        loop = asyncio.get_running_loop()
        self._running = loop.create_future()
        self._ended = loop.create_future()
        pairs = [socket.socketpair() for _ in range(2)]
        ours = [pair[0] for pair in pairs]
        try:
            self.pid = spawn(self._binary, self._arguments, [pair[1] for pair in pairs])
        except BaseException:
            for end in ours:
                end.close()
            raise
        finally:
            for pair in pairs:
                pair[1].close()
        self._log = self._log.bind(pid=self.pid)
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._exited)
        try:
            await self._open(loop, ours)
            async with asyncio.timeout(START_TIMEOUT_SECONDS):
                await self._running
        except BaseException:
            await self.close()
            self._close_transports()
            raise
        self._timer = loop.call_later(TICK_SECONDS, self._tick)

    async def _open(self, loop: asyncio.AbstractEventLoop, ours: Sequence[socket.socket]) -> None:
        for end, receive in zip(ours, (_ignore, self._received), strict=True):
            transport, _ = await loop.create_unix_connection(lambda receive=receive: _Pipe(receive), sock=end)  # type: ignore[misc]
            self._transports.append(transport)
        self._writer = cast("asyncio.WriteTransport", self._transports[0])

    async def close(self) -> None:
        """Ends the engine by SIGTERM, then by SIGKILL. Pending requests fail; `died` is not called."""
        self._closing = True
        if self._ended is None or self._ended.done():
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self.kill()
            await self._ended

    def kill(self) -> None:
        """Ends the engine at once; `died` is called."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _exited(self) -> None:
        status = 0
        with suppress(ChildProcessError):  # another part of this process waits for all children
            _, status = os.waitpid(self.pid, 0)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._timer:
            self._timer.cancel()
        self._close_transports()
        code = os.waitstatus_to_exitcode(status)
        how = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
        assert self._running
        assert self._ended
        was_running = self._running.done()
        if not was_running:
            self._running.set_exception(ChannelError(f"the engine {how} at its start"))
            self._running.exception()  # start() may have given up on it already
        self._ended.set_result(None)
        self._fail_pending(lambda _: True, f"the engine {how}")
        if was_running and not self._closing:
            self._died(how)

    def _close_transports(self) -> None:
        for transport in self._transports:
            transport.close()

    # --- requests ---------------------------------------------------------------------------------------------

    def request(self, method: str, handler: str, data: object, answered: Answered, *, must: bool = False) -> None:
        """Sends a request. `answered` is called once, which may be at once.

        Too many unanswered requests are refused as `BUSY`, unless the request `must` be sent.
        """
        if self._writer is None or self._pidfd < 0 or self._closing:
            answered(Response(0, error=NO_ANSWER, reason="the engine has ended"))
            return
        unsent = self._unwritten_bytes + self._writer.get_write_buffer_size()
        if (len(self._pending) >= MAX_PENDING or unsent >= MAX_UNSENT_BYTES) and not must:
            answered(Response(0, error=BUSY, reason="the engine has too much to do"))
            return
        number = self._last_number = self._last_number % 0xFFFF_FFFF + 1
        try:
            frame = encode_request(self._schema, number, method, handler, data)
        except (EncodeError, ChannelError) as error:
            answered(Response(0, error=UNFIT if isinstance(error, EncodeError) else TOO_LONG, reason=str(error)))
            return
        self._pending[number] = (answered, self._ticks)
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write)
        self._unwritten.append(frame)
        self._unwritten_bytes += len(frame)

    def _write(self) -> None:
        assert self._writer
        self._writer.write(b"".join(self._unwritten))
        self._unwritten.clear()
        self._unwritten_bytes = 0

    async def ask(self, method: str, handler: str = "", data: object = None) -> Response:
        """Sends a request and waits for its answer."""
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def answered(response: Response) -> None:
            if not answer.done():
                answer.set_result(response)

        self.request(method, handler, data, answered)
        return await answer

    def tell(self, method: str, handler: str, data: object = None) -> None:
        """Sends a request that is never refused, and drops its answer."""

        def answered(answer: Response) -> None:
            # Engine and node may close an object at the same time; any other reason is a defect of the node.
            if answer.error and answer.error != NO_ANSWER:
                self._log.debug("order.refused", method=method, target=handler, reason=answer.reason)

        self.request(method, handler, data, answered, must=True)

    def _received(self, data: bytes) -> None:
        self._silent_ticks = 0
        try:
            for message in self._decoder.feed(data):
                match message:
                    case Response():
                        answered, _ = self._pending.pop(message.id, (_ignore_answer, 0))
                        answered(message)
                    case Notification():
                        self._notification(message)
                    case LogLine():
                        getattr(self._log, message.level)("engine.logged", text=cut(message.text, REASON_CHARS))
        except ChannelError as error:
            self._log.error("engine.channel_broken", error=str(error))
            self.kill()

    def _notification(self, message: Notification) -> None:
        if message.event == "WORKER_RUNNING":
            assert self._running
            if not self._running.done():
                self._running.set_result(None)
        else:
            self._notified(message)

    # --- deadlines --------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Kills an engine that owes answers and sends nothing; fails single requests that it has skipped."""
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        self._ticks += 1
        if not self._pending:
            self._silent_ticks = 0
            return
        self._silent_ticks += 1
        if self._silent_ticks > DEADLINE_TICKS:
            self._log.error("engine.stuck", pending=len(self._pending))
            self.kill()
            return
        oldest = self._ticks - 2 * DEADLINE_TICKS
        self._fail_pending(lambda sent: sent < oldest, "the engine did not answer in time")

    def _fail_pending(self, expired: Callable[[int], bool], reason: str) -> None:
        failed: list[Answered] = []
        for number, (answered, sent) in list(self._pending.items()):
            if not expired(sent):
                break  # requests stand in the order they were sent
            del self._pending[number]
            failed.append(answered)
        for answered in failed:
            answered(Response(0, error=NO_ANSWER, reason=reason))


class _Pipe(asyncio.Protocol):
    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive

    def data_received(self, data: bytes) -> None:
        self._receive(data)


def _ignore(_: bytes) -> None:
    pass


def _ignore_answer(_: Any) -> None:
    pass
