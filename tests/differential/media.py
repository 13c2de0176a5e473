"""A media node that answers as the oracle's engine does, and keeps what an engine would carry."""

from dataclasses import dataclass, field
from typing import Any

from shared.protocol import media
from shared.protocol.rtp import DtlsParameters, Fingerprint, IceCandidate, IceParameters

Json = dict[str, Any]

FINGERPRINTS = ("sha-1", "sha-224", "sha-256", "sha-384", "sha-512")
LOCAL_ROLE: dict[str, Any] = {"auto": "client", "client": "server", "server": "client"}

_NO_FINGERPRINT = media.Failed(400, "no known fingerprint algorithm")


@dataclass
class Object:
    """An object made by a request. `picture` calls it `label`; `on` are the objects it closes with."""

    kind: str
    label: str
    on: tuple[str, ...]
    facts: Json = field(default_factory=dict)
    v: int = 0


class Engine:
    """`id_` is the client's id of what is asked for next, `profile` what a consumer is sent at first."""

    def __init__(self) -> None:
        self.refusing = False
        self.id_: Any = None
        self.profile: Any = "none"
        self._objects: dict[str, Object] = {}

    def picture(self) -> Json:
        """Returns what the engine carries, by the clients' ids."""
        picture: Json = {"transport": {}, "producer": {}, "consumer": {}}
        for it in self._objects.values():
            picture[it.kind][it.label] = it.facts
        return {f"{kind}s": objects for kind, objects in picture.items()}

    # --- requests ---------------------------------------------------------------------------------------------

    def result(self, request: media.AnyRequest) -> media.AnyResult:
        if self.refusing:
            return media.Failed(500, "refused")
        match request:
            case media.CreateTransport():
                return self._create(request)
            case media.ConnectTransport(transport=transport, dtls_parameters=dtls):
                if not _known(dtls):
                    return _NO_FINGERPRINT
                self._objects[transport].facts["connected"] = True
                return media.TransportConnected(LOCAL_ROLE[dtls.role])
            case media.RestartIce(generation=generation):
                return media.IceRestarted(IceParameters(f"fragment{generation}", "password", ice_lite=True))
            case media.Produce():
                return self._produce(request)
            case media.UpdateProducer():
                return media.Produced()
            case media.Consume():
                return self._consume(request)
            case media.GetStats():
                return media.Stats([])

    def _create(self, request: media.CreateTransport) -> media.AnyResult:
        dtls = request.dtls_parameters
        if dtls is not None and not _known(dtls):
            return _NO_FINGERPRINT
        facts = {"connected": dtls is not None}
        self._objects[request.transport] = Object("transport", str(self.id_), (request.router.id,), facts)
        return media.TransportCreated(
            ice_parameters=IceParameters("fragment0", "password", ice_lite=True),
            ice_candidates=[IceCandidate("1", 1, "192.0.2.1", "udp", 40000, "host")],
            dtls_parameters=DtlsParameters(
                [Fingerprint("sha-256", "CC:DD")], "auto" if dtls is None else LOCAL_ROLE[dtls.role]
            ),
        )

    def _produce(self, request: media.Produce) -> media.AnyResult:
        facts = {"paused": request.paused, "transport": int(self._objects[request.transport].label)}
        self._objects[request.producer] = Object("producer", str(self.id_), (request.transport,), facts)
        return media.Produced()

    def _consume(self, request: media.Consume) -> media.AnyResult:
        label = f"{self._objects[request.producer].label} over {self._objects[request.transport].label}"
        facts = {"paused": request.paused, "profile": request.preferred_profile}
        self._objects[request.consumer] = Object("consumer", label, (request.transport, request.producer), facts)
        return media.Consumed(self.profile)

    # --- orders -----------------------------------------------------------------------------------------------

    def obey(self, order: media.AnyOrder) -> None:
        """An order older than the last one for its object is ignored, as nodes do."""
        if isinstance(order, media.Close):
            self._close(order.object)
            return
        it = self._objects.get(order.object)
        if it is None or order.v < it.v:
            return
        it.v = order.v
        match order:
            case media.Pause() | media.Resume():
                it.facts["paused"] = isinstance(order, media.Pause)
            case media.SetPreferredProfile(profile=profile):
                it.facts["profile"] = profile
            case media.RequestKeyFrame() | media.SetMaxIncomingBitrate():
                pass

    def _close(self, id_: str) -> None:
        self._objects.pop(id_, None)
        for child in [child for child, it in self._objects.items() if id_ in it.on]:
            self._close(child)


def _known(dtls: DtlsParameters) -> bool:
    return any(fingerprint.algorithm in FINGERPRINTS for fingerprint in dtls.fingerprints)
