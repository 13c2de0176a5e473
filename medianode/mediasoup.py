"""The engine mediasoup-worker behind the `medianode.engine.Engine` port.

One process, with one WebRtcServer: all its transports share one UDP and one TCP port.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import msgspec

from medianode import mapping
from medianode.channel import ChannelError, Notification, Response
from medianode.engine import Done, EngineFailed, OnDeath, OnEvent
from medianode.process import BUSY, NO_ANSWER, UNSENDABLE, Answered, EngineProcess
from shared import log
from shared.protocol import media
from shared.protocol.media import EngineId, Failed

_SERVER = "server"


@dataclass(frozen=True)
class MediasoupSettings:
    """`port` 0: any free one."""

    binary: Path
    listen_ip: str
    announced_ip: str
    port: int
    rtc_min_port: int
    rtc_max_port: int
    initial_bitrate: int

    def arguments(self) -> list[str]:
        ports = [f"--rtcMinPort={self.rtc_min_port}", f"--rtcMaxPort={self.rtc_max_port}"]
        return ["--logLevel=warn", *ports]

    def listen_infos(self) -> list[dict[str, Any]]:
        info: dict[str, Any] = {"ip": self.listen_ip}
        if self.announced_ip and self.announced_ip != self.listen_ip:
            info["announcedIp"] = self.announced_ip
        if self.port:
            info["port"] = self.port
        return [{"protocol": protocol, **info} for protocol in ("udp", "tcp")]


class MediasoupEngine:
    def __init__(self, settings: MediasoupSettings) -> None:
        self._settings = settings
        self._log = log.get("engine")
        self._on_event: OnEvent = _ignore
        self._on_death: OnDeath = _ignore
        self._process = EngineProcess(settings.binary, settings.arguments(), self._notified, self._died)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, method: str, handler: str = "", data: object = None) -> Response:
        """The engine's own words, for those who look into it (dumps)."""
        return await self._process.ask(method, handler, data)

    async def start(self, on_event: OnEvent, on_death: OnDeath) -> None:
        self._on_event = on_event
        self._on_death = on_death
        try:
            await self._process.start()
        except (OSError, TimeoutError, ChannelError) as error:
            raise EngineFailed(f"{self._settings.binary}: {error!r}") from error
        try:
            await self._open_port()
        except BaseException:
            await self._process.close()
            raise

    async def _open_port(self) -> None:
        data = {"webRtcServerId": _SERVER, "listenInfos": self._settings.listen_infos()}
        answer = await self._process.ask("worker.createWebRtcServer", data=data)
        if answer.error:
            raise EngineFailed(f"no media port: {answer.reason}")

    async def close(self) -> None:
        await self._process.close()

    def create_router(self, router: EngineId) -> None:
        self._tell("worker.createRouter", "", {"routerId": router})

    # --- requests ---------------------------------------------------------------------------------------------

    def request(self, request: media.AnyRequest, done: Done) -> None:
        ask = self._process.request
        try:
            match request:
                case media.CreateTransport():
                    self._create_transport(request, done)
                case media.ConnectTransport(transport=transport, dtls_parameters=remote):
                    data = {"dtlsParameters": mapping.dtls_to_engine(remote)}
                    ask("transport.connect", transport, data, _then(done, _connected))
                case media.RestartIce(transport=transport):
                    ask("transport.restartIce", transport, None, _then(done, _restarted))
                case media.Produce(transport=transport):
                    produced = media.Produced()
                    ask("transport.produce", transport, mapping.produce(request), _then(done, lambda _: produced))
                case media.UpdateProducer():
                    done(Failed(409, "the engine cannot change the SSRCs of a producer"))
                case media.Consume(transport=transport):
                    consumed = mapping.consumed(request)
                    ask("transport.consume", transport, mapping.consume(request), _then(done, lambda _: consumed))
                case media.GetStats(kind=kind, object=target):
                    ask(f"{kind}.getStats", target, None, _then(done, lambda data: mapping.stats(request, data)))
                case _:
                    assert_never(request)
        except ValueError as error:
            done(Failed(400, str(error)))

    def _create_transport(self, request: media.CreateTransport, done: Done) -> None:
        """Create and connect go out together; if the second fails, the transport is closed again."""
        data = mapping.create_transport(request, _SERVER, self._settings.initial_bitrate)
        create = "router.createWebRtcTransportWithServer"
        if request.dtls_parameters is None:
            self._process.request(
                create, request.router.id, data, _then(done, lambda answer: mapping.transport_created(answer, None))
            )
            return
        created: list[Response] = []

        def connected(answer: Response) -> None:
            if created and created[0].error:
                done(failed(created[0]))
                return
            if answer.error:
                self._tell("router.closeTransport", request.router.id, {"transportId": request.transport})
            both = _then(done, lambda role: mapping.transport_created(created[0].data, role["dtlsLocalRole"]))
            both(answer)

        self._process.request(create, request.router.id, data, created.append)
        remote = {"dtlsParameters": mapping.dtls_to_engine(request.dtls_parameters)}
        self._process.request("transport.connect", request.transport, remote, connected)

    # --- orders -----------------------------------------------------------------------------------------------

    def order(self, order: media.AnyOrder, parent: EngineId) -> None:
        target = order.object
        match order:
            case media.Close(kind=kind):
                self._close(kind, target, parent)
            case media.Pause(kind=kind):
                self._tell(f"{kind}.pause", target)
            case media.Resume(kind=kind):
                self._tell(f"{kind}.resume", target)
            case media.SetPreferredProfile(profile=profile):
                self._tell("consumer.setPreferredLayers", target, mapping.preferred_layers(profile))
            case media.RequestKeyFrame():
                self._tell("consumer.requestKeyFrame", target)
            case media.SetMaxIncomingBitrate(bitrate=bitrate):
                self._tell("transport.setMaxIncomingBitrate", target, {"bitrate": bitrate})
            case _:
                assert_never(order)

    def _close(self, kind: media.ObjectKind, target: EngineId, parent: EngineId) -> None:
        match kind:
            case "router":
                self._tell("worker.closeRouter", "", {"routerId": target})
            case "transport":
                self._tell("router.closeTransport", parent, {"transportId": target})
            case "producer":
                self._tell("transport.closeProducer", parent, {"producerId": target})
            case "consumer":
                self._tell("transport.closeConsumer", parent, {"consumerId": target})
            case _:
                assert_never(kind)

    def _tell(self, method: str, handler: str, data: object = None) -> None:
        def answered(answer: Response) -> None:
            # Usual when both ends close at once; a defect of ours otherwise.
            if answer.error and answer.error != NO_ANSWER:
                self._log.debug("order refused", method=method, target=handler, reason=answer.reason)

        self._process.request(method, handler, data, answered, must=True)

    # --- what the engine reports ------------------------------------------------------------------------------

    def _notified(self, notification: Notification) -> None:
        event = mapping.event(notification.target, notification.event, notification.data)
        if event is not None:
            self._on_event(event)

    def _died(self, reason: str) -> None:
        self._on_death(reason)


_CODES = {NO_ANSWER: 503, BUSY: 503, UNSENDABLE: 413, "TypeError": 400}


def failed(answer: Response) -> Failed:
    """The engine tells bad arguments (TypeError) from all else; the rest it says only in words."""
    code = _CODES.get(answer.error)
    if code is None:
        code = 404 if "not found" in answer.reason else 409 if "already" in answer.reason else 500
    return Failed(code, answer.reason)


def _then(done: Done, result: Callable[[Any], media.AnyResult]) -> Answered:
    def answered(answer: Response) -> None:
        if answer.error:
            done(failed(answer))
            return
        try:
            value = result(answer.data)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            done(Failed(500, f"the engine's answer was not understood: {error!r}"))
        else:
            done(value)

    return answered


def _connected(data: Any) -> media.AnyResult:
    return media.TransportConnected(data["dtlsLocalRole"])


def _restarted(data: Any) -> media.AnyResult:
    return media.IceRestarted(mapping.ice_parameters(data["iceParameters"]))


def _ignore(_: object) -> None:
    pass
