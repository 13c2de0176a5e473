"""A router's loopback: two pipe transports of the same router, connected to each other over 127.0.0.1.

A pipe consumer on `entrance` feeds the producer on `exit` that has its SSRCs. To the engine the two ends are
unrelated, so that one can be replaced while the other stays. Each RTP packet costs a UDP packet to the same process.
"""

from collections.abc import Callable

from medianode.engines.mediasoup import translation
from medianode.engines.mediasoup.answers import failed
from medianode.engines.mediasoup.channel import Response
from medianode.engines.mediasoup.process import EngineProcess
from shared.protocol.media import EngineId, Failed

_IP = "127.0.0.1"


class Loopback:
    """Connects two pipe transports of a router. They close with the router.

    Producers and consumers may be created on both ends at once; media flows when the ends are connected.
    """

    def __init__(self, process: EngineProcess, router: EngineId) -> None:
        self.entrance = f"{router}.entrance"
        self.exit = f"{router}.exit"
        self.failure: Failed | None = None
        self._last_ssrc = 0
        self._process = process
        self._router = router
        self._ports: dict[EngineId, int] = {}
        self._ends_to_connect = 2
        self._waiting: list[Callable[[], None]] = []
        for end in (self.entrance, self.exit):
            self._create(end)

    def new_ssrcs(self, count: int) -> list[int]:
        """Returns SSRCs for streams that stay inside the loopback."""
        first = self._last_ssrc + 1
        self._last_ssrc += count
        return list(range(first, first + count))

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when the ends are connected or `failure` is set, which may be at once."""
        if self._ends_to_connect and not self.failure:
            self._waiting.append(callback)
        else:
            callback()

    def _create(self, end: EngineId) -> None:
        def created(answer: Response) -> None:
            if self._succeeded(answer):
                self._ports[end] = answer.data["tuple"]["local_port"]
                if len(self._ports) == 2:
                    self._connect(self.entrance, self._ports[self.exit])
                    self._connect(self.exit, self._ports[self.entrance])

        data = {"transport_id": end, "options": {"base": {}, "listen_info": translation.listen_info("UDP", _IP)}}
        self._process.request("ROUTER_CREATE_PIPETRANSPORT", self._router, data, created, must=True)

    def _connect(self, end: EngineId, port: int) -> None:
        def connected(answer: Response) -> None:
            if self._succeeded(answer):
                self._ends_to_connect -= 1
                if not self._ends_to_connect:
                    self._call_waiting()

        self._process.request("PIPETRANSPORT_CONNECT", end, {"ip": _IP, "port": port}, connected, must=True)

    def _succeeded(self, answer: Response) -> bool:
        """Returns whether nothing failed so far. The first failure closes both ends, for a new loopback to follow."""
        if answer.error and not self.failure:
            self.failure = failed(answer)
            for end in (self.entrance, self.exit):
                self._process.tell("ROUTER_CLOSE_TRANSPORT", self._router, {"transport_id": end})
            self._call_waiting()
        return not self.failure

    def _call_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()
