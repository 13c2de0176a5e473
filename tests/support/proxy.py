"""A TCP proxy between the code under test and a server: cuts connections and refuses new ones."""

import asyncio
import contextlib


class Proxy:
    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._refused = asyncio.Semaphore(0)
        self.port = 0

    async def start(self) -> None:
        """Accepts connections and passes them on, also again after `refuse`: the port is kept until `stop`."""
        self._refusing = False
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    def redirect(self, host: str, port: int) -> None:
        """Passes new connections to this address; open ones keep theirs."""
        self._target = (host, port)

    def refuse(self) -> None:
        """Resets new connections at once, until `start`."""
        self._refusing = True

    async def until_refused(self, count: int) -> None:
        """Returns after that many more attempts to connect were refused."""
        for _ in range(count):
            await self._refused.acquire()

    def cut(self) -> None:
        """Resets every connection on both sides."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.gather(*self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            self._refused.release()
            return
        self._writers.add(writer)
        task = asyncio.create_task(self._connect(reader, writer), name="proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward_reader, onward_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(onward_writer)
        try:
            await asyncio.gather(self._pass(reader, onward_writer), self._pass(onward_reader, writer))
        finally:
            self._writers -= {writer, onward_writer}

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
