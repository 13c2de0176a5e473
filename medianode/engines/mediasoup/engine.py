"""The adapter of mediasoup-worker to the port `medianode.engines.port.Engine`.

An engine is one process with one WebRtcServer, so that all its transports share one UDP and one TCP port.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from medianode.engines.mediasoup import stats, translation
from medianode.engines.mediasoup.answers import failed, result_callback
from medianode.engines.mediasoup.channel import ChannelError, Notification, Response
from medianode.engines.mediasoup.process import Answered, EngineProcess
from medianode.engines.mediasoup.updatable_producers import UpdatableProducers
from medianode.engines.port import Done, EngineFailed, OnDeath, OnEvent
from shared.protocol import media
from shared.protocol.media import EngineId, Failed
from shared.telemetry import log

_SERVER = "server"


@dataclass(frozen=True)
class MediasoupSettings:
    """The settings that an engine is started with. `port` 0: the system chooses; `initial_bitrate` is in bit/s."""

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
    """Runs one mediasoup-worker process. Implements `medianode.engines.port.Engine`."""

    def __init__(self, settings: MediasoupSettings) -> None:
        self._settings = settings
        self._log = log.get("engine")
        self._on_event: OnEvent = _ignore
        self._on_death: OnDeath = _ignore
        self._process = EngineProcess(settings.binary, settings.arguments(), self._notified, self._died)
        self._updatables = UpdatableProducers(self._process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, method: str, handler: str = "", data: object = None) -> Response:
        """Sends the engine a request in its own terms, to inspect it (dumps)."""
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
        self._process.tell("worker.createRouter", "", {"routerId": router})

    # --- requests ---------------------------------------------------------------------------------------------

    def request(self, request: media.AnyRequest, done: Done) -> None:
        ask = self._process.request
        try:
            match request:
                case media.CreateTransport():
                    self._create_transport(request, done)
                case media.ConnectTransport(transport=transport, dtls_parameters=remote):
                    data = {"dtlsParameters": translation.dtls_to_engine(remote)}
                    ask("transport.connect", transport, data, result_callback(done, _connected))
                case media.RestartIce(transport=transport):
                    ask("transport.restartIce", transport, None, result_callback(done, _restarted))
                case media.Produce(updatable=True):
                    self._updatables.produce(request, done)
                case media.Produce(transport=transport):
                    produced = media.Produced()
                    ask(
                        "transport.produce",
                        transport,
                        translation.produce(request),
                        result_callback(done, lambda _: produced),
                    )
                case media.UpdateProducer(producer=producer):
                    if updatable := self._updatables.get(producer):
                        updatable.update(request, done)
                    else:
                        done(Failed(409, "the producer was not made to be updated: its SSRCs are fixed"))
                case media.Consume(transport=transport):
                    consumed = translation.consumed(request)
                    ask(
                        "transport.consume",
                        transport,
                        translation.consume(request),
                        result_callback(done, lambda _: consumed),
                    )
                case media.GetStats():
                    self._get_stats(request, done)
                case _:
                    assert_never(request)
        except ValueError as error:
            done(Failed(400, str(error)))

    def _create_transport(self, request: media.CreateTransport, done: Done) -> None:
        """Create and connect go out together; if the second fails, the transport is closed again."""
        data = translation.create_transport(request, _SERVER, self._settings.initial_bitrate)
        create = "router.createWebRtcTransportWithServer"
        if request.dtls_parameters is None:
            self._process.request(
                create,
                request.router.id,
                data,
                result_callback(done, lambda answer: translation.transport_created(answer, None)),
            )
            return
        created: list[Response] = []

        def connected(answer: Response) -> None:
            if created and created[0].error:
                done(failed(created[0]))
                return
            if answer.error:
                self._close_transport(request.router.id, request.transport)
            both = result_callback(
                done, lambda role: translation.transport_created(created[0].data, role["dtlsLocalRole"])
            )
            both(answer)

        self._process.request(create, request.router.id, data, created.append)
        remote = {"dtlsParameters": translation.dtls_to_engine(request.dtls_parameters)}
        self._process.request("transport.connect", request.transport, remote, connected)

    def _get_stats(self, request: media.GetStats, done: Done) -> None:
        """Answers with the engine's statistics.

        For an updatable producer, and a consumer of one, they describe what the client sends, not the loopback.
        """
        answered = result_callback(done, lambda data: stats.convert(request, data))
        target = request.object
        if request.kind == "consumer":
            self._process.request("consumer.getStats", target, None, partial(self._consumer_stats, request, answered))
            return
        if updatable := self._updatables.get(target):
            if updatable.ingest is None:
                done(media.Stats([]))
                return
            target = updatable.ingest
        self._process.request(f"{request.kind}.getStats", target, None, answered)

    def _consumer_stats(self, request: media.GetStats, answered: Answered, answer: Response) -> None:
        ssrc = None if answer.error else stats.inbound_ssrc(answer.data)
        source = None if ssrc is None else self._updatables.ingest_of(request.router.id, ssrc)
        if source is None:
            answered(answer)
            return
        ingest, encoding = source

        def from_client(sent: Response) -> None:
            inbound = None if sent.error else stats.stream_of_encoding(sent.data, encoding)
            answered(Response(answer.id, stats.with_inbound(answer.data, inbound)))

        self._process.request("producer.getStats", ingest, None, from_client)

    # --- orders -----------------------------------------------------------------------------------------------

    def order(self, order: media.AnyOrder, parent: EngineId) -> None:
        target = order.object
        match order:
            case media.Close(kind=kind):
                self._close(kind, target, parent)
            case media.Pause(kind=kind):
                if updatable := self._updatables.get(target):
                    updatable.pause()
                else:
                    self._process.tell(f"{kind}.pause", target)
            case media.Resume(kind=kind):
                if updatable := self._updatables.get(target):
                    updatable.resume()
                else:
                    self._process.tell(f"{kind}.resume", target)
            case media.SetPreferredProfile(profile=profile):
                self._process.tell("consumer.setPreferredLayers", target, translation.preferred_layers(profile))
            case media.RequestKeyFrame():
                self._process.tell("consumer.requestKeyFrame", target)
            case media.SetMaxIncomingBitrate(bitrate=bitrate):
                self._process.tell("transport.setMaxIncomingBitrate", target, {"bitrate": bitrate})
            case _:
                assert_never(order)

    def _close(self, kind: media.ObjectKind, target: EngineId, parent: EngineId) -> None:
        match kind:
            case "router":
                self._process.tell("worker.closeRouter", "", {"routerId": target})
                self._updatables.router_closed(target)
            case "transport":
                self._close_transport(parent, target)
            case "producer":
                if updatable := self._updatables.get(target):
                    self._updatables.close(updatable)
                else:
                    self._process.tell("transport.closeProducer", parent, {"producerId": target})
            case "consumer":
                self._process.tell("transport.closeConsumer", parent, {"consumerId": target})
            case _:
                assert_never(kind)

    def _close_transport(self, router: EngineId, transport: EngineId) -> None:
        self._process.tell("router.closeTransport", router, {"transportId": transport})
        self._updatables.transport_closed(transport)

    # --- what the engine reports ------------------------------------------------------------------------------

    def _notified(self, notification: Notification) -> None:
        target = notification.target
        if updatable := self._updatables.with_ingest(target):
            target = updatable.id
        elif self._updatables.get(target):
            return  # no client needs the quality of the loopback
        event = translation.event(target, notification.event, notification.data)
        if event is not None:
            self._on_event(event)

    def _died(self, reason: str) -> None:
        self._on_death(reason)


def _connected(data: Any) -> media.AnyResult:
    return media.TransportConnected(data["dtlsLocalRole"])


def _restarted(data: Any) -> media.AnyResult:
    return media.IceRestarted(translation.ice_parameters(data["iceParameters"]))


def _ignore(_: object) -> None:
    pass
