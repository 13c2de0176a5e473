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
from medianode.engines.mediasoup.flatbuffers_codec import Schema
from medianode.engines.mediasoup.process import EngineProcess
from medianode.engines.mediasoup.updatable_producers import UpdatableProducers
from medianode.engines.port import Done, EngineFailed, OnDeath, OnEvent
from shared.protocol import media
from shared.protocol.media import EngineId, Failed
from shared.telemetry import log

_SERVER = "server"


@dataclass(frozen=True)
class MediasoupSettings:
    """The settings that an engine is started with. `port` 0: the system chooses; `initial_bitrate` is in bit/s.

    `schema` describes the messages of this very binary.
    """

    binary: Path
    schema: Schema
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
        announced = "" if self.announced_ip == self.listen_ip else self.announced_ip
        return [
            translation.listen_info(protocol, self.listen_ip, announced_ip=announced, port=self.port)
            for protocol in ("UDP", "TCP")
        ]


class MediasoupEngine:
    """Runs one mediasoup-worker process. Implements `medianode.engines.port.Engine`."""

    def __init__(self, settings: MediasoupSettings) -> None:
        self._settings = settings
        self._log = log.get("engine")
        self._on_event: OnEvent = _ignore
        self._on_death: OnDeath = _ignore
        self._process = EngineProcess(
            settings.binary, settings.schema, settings.arguments(), self._notified, self._died
        )
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
        data = {"web_rtc_server_id": _SERVER, "listen_infos": self._settings.listen_infos()}
        answer = await self._process.ask("WORKER_CREATE_WEBRTCSERVER", data=data)
        if answer.error:
            raise EngineFailed(f"no media port: {answer.reason}")

    async def close(self) -> None:
        await self._process.close()

    def create_router(self, router: EngineId) -> None:
        self._process.tell("WORKER_CREATE_ROUTER", "", {"router_id": router})

    # --- requests ---------------------------------------------------------------------------------------------

    def request(self, request: media.AnyRequest, done: Done) -> None:
        ask = self._process.request
        try:
            match request:
                case media.CreateTransport():
                    self._create_transport(request, done)
                case media.ConnectTransport(transport=transport, dtls_parameters=remote):
                    data = translation.connect_transport(remote)
                    ask("WEBRTCTRANSPORT_CONNECT", transport, data, result_callback(done, _connected))
                case media.RestartIce(transport=transport):
                    ask("TRANSPORT_RESTART_ICE", transport, None, result_callback(done, _restarted))
                case media.Produce(updatable=True):
                    self._updatables.produce(request, done)
                case media.Produce(transport=transport):
                    produced = media.Produced()
                    ask(
                        "TRANSPORT_PRODUCE",
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
                        "TRANSPORT_CONSUME",
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
        create = "ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER"
        if request.dtls_parameters is None:
            self._process.request(
                create,
                request.router.id,
                data,
                result_callback(done, lambda answer: translation.transport_created(answer, None)),
            )
            return
        remote = translation.connect_transport(request.dtls_parameters)
        created: list[Response] = []

        def connected(answer: Response) -> None:
            if created and created[0].error:
                done(failed(created[0]))
                return
            if answer.error:
                self._close_transport(request.router.id, request.transport)
            both = result_callback(
                done, lambda role: translation.transport_created(created[0].data, role["dtls_local_role"])
            )
            both(answer)

        self._process.request(create, request.router.id, data, created.append)
        self._process.request("WEBRTCTRANSPORT_CONNECT", request.transport, remote, connected)

    def _get_stats(self, request: media.GetStats, done: Done) -> None:
        """Answers with the engine's statistics.

        For an updatable producer, and a consumer of one, they describe what the client sends, not the loopback.
        """
        target = request.object
        if request.kind == "consumer":
            self._process.request("CONSUMER_GET_STATS", target, None, partial(self._consumer_stats, request, done))
            return
        if updatable := self._updatables.get(target):
            if updatable.ingest is None:
                done(media.Stats([]))
                return
            target = updatable.ingest
        answered = result_callback(done, lambda data: stats.convert(request, data))
        self._process.request(f"{request.kind.upper()}_GET_STATS", target, None, answered)

    def _consumer_stats(self, request: media.GetStats, done: Done, answer: Response) -> None:
        streams = [] if answer.error else stats.streams(answer.data)
        ssrc = stats.inbound_ssrc(streams)
        source = None if ssrc is None else self._updatables.ingest_of(request.router.id, ssrc)
        if source is None:
            result_callback(done, lambda _: stats.convert_consumer(request, streams))(answer)
            return
        ingest, encoding = source

        def from_client(sent: Response) -> None:
            inbound = None if sent.error else stats.stream_of_encoding(stats.streams(sent.data), encoding)
            done(stats.convert_consumer(request, stats.with_inbound(streams, inbound)))

        self._process.request("PRODUCER_GET_STATS", ingest, None, from_client)

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
                    self._process.tell(f"{kind.upper()}_PAUSE", target)
            case media.Resume(kind=kind):
                if updatable := self._updatables.get(target):
                    updatable.resume()
                else:
                    self._process.tell(f"{kind.upper()}_RESUME", target)
            case media.SetPreferredProfile(profile=profile):
                layers = {"preferred_layers": translation.preferred_layers(profile)}
                self._process.tell("CONSUMER_SET_PREFERRED_LAYERS", target, layers)
            case media.RequestKeyFrame():
                self._process.tell("CONSUMER_REQUEST_KEY_FRAME", target)
            case media.SetMaxIncomingBitrate(bitrate=bitrate):
                self._process.tell("TRANSPORT_SET_MAX_INCOMING_BITRATE", target, {"max_incoming_bitrate": bitrate})
            case _:
                assert_never(order)

    def _close(self, kind: media.ObjectKind, target: EngineId, parent: EngineId) -> None:
        match kind:
            case "router":
                self._process.tell("WORKER_CLOSE_ROUTER", "", {"router_id": target})
                self._updatables.router_closed(target)
            case "transport":
                self._close_transport(parent, target)
            case "producer":
                if updatable := self._updatables.get(target):
                    self._updatables.close(updatable)
                else:
                    self._process.tell("TRANSPORT_CLOSE_PRODUCER", parent, {"producer_id": target})
            case "consumer":
                self._process.tell("TRANSPORT_CLOSE_CONSUMER", parent, {"consumer_id": target})
            case _:
                assert_never(kind)

    def _close_transport(self, router: EngineId, transport: EngineId) -> None:
        self._process.tell("ROUTER_CLOSE_TRANSPORT", router, {"transport_id": transport})
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
    return media.TransportConnected(translation.dtls_role(data["dtls_local_role"]))


def _restarted(data: Any) -> media.AnyResult:
    return media.IceRestarted(translation.ice_parameters(data))


def _ignore(_: object) -> None:
    pass
