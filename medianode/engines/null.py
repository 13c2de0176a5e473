"""NullEngine: an engine that accepts every request and transports no media.

Load tests and benchmarks of signaling alone use it. Its answers have the form of a real engine's, and it reports no
events.
"""

import hashlib
from typing import Literal, assert_never

from medianode.engines.port import Done, OnDeath, OnEvent
from shared.protocol import media
from shared.protocol.media import EngineId
from shared.protocol.rtp import DtlsParameters, Fingerprint, IceCandidate, IceParameters

_PORT = 9  # the discard service


class NullEngine:
    """Answers every request at once. Implements `medianode.engines.port.Engine`."""

    pid = 0

    def __init__(self, announced_ip: str) -> None:
        self._candidate = IceCandidate("nullcandidate", 1_076_302_079, announced_ip, "udp", _PORT, "host")
        digest = hashlib.sha256(b"null engine").hexdigest().upper()
        self._fingerprint = ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))

    async def start(self, on_event: OnEvent, on_death: OnDeath) -> None:
        pass

    async def close(self) -> None:
        pass

    def create_router(self, router: EngineId) -> None:
        pass

    def order(self, order: media.AnyOrder, parent: EngineId) -> None:
        pass

    def request(self, request: media.AnyRequest, done: Done) -> None:
        done(self._answer(request))

    def _answer(self, request: media.AnyRequest) -> media.AnyResult:
        match request:
            case media.CreateTransport(transport=transport, dtls_parameters=remote):
                role = _role(remote) if remote else "auto"
                return media.TransportCreated(
                    ice_parameters=_ice_parameters(transport, 0),
                    ice_candidates=[self._candidate],
                    dtls_parameters=DtlsParameters([Fingerprint("sha-256", self._fingerprint)], role),
                )
            case media.ConnectTransport(dtls_parameters=remote):
                return media.TransportConnected(_role(remote))
            case media.RestartIce(transport=transport, generation=generation):
                return media.IceRestarted(_ice_parameters(transport, generation))
            case media.Produce() | media.UpdateProducer():
                return media.Produced()
            case media.Consume():
                return media.Consumed("default")
            case media.GetStats():
                return media.Stats([])
            case _:
                assert_never(request)


def _role(remote: DtlsParameters) -> Literal["client", "server"]:
    return "server" if remote.role == "client" else "client"


def _ice_parameters(transport: EngineId, generation: int) -> IceParameters:
    """Returns parameters that depend on the transport and the generation only, not on the process."""
    digest = hashlib.sha256(f"{transport}/{generation}".encode()).hexdigest()
    return IceParameters(username_fragment=digest[:32], password=digest[32:], ice_lite=True)
