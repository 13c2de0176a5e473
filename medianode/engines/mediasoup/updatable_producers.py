"""The updatable producers of an engine, and the loopbacks of its routers."""

from medianode.engines.mediasoup.loopback import Loopback
from medianode.engines.mediasoup.process import EngineProcess
from medianode.engines.mediasoup.updatable_producer import UpdatableProducer
from medianode.engines.port import Done
from shared.protocol import media
from shared.protocol.media import EngineId
from shared.protocol.rtp import Encoding


class UpdatableProducers:
    """The updatable producers of one engine, found by their own ids and by those of their parts."""

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._producers: dict[EngineId, UpdatableProducer] = {}
        self._by_output: dict[tuple[EngineId, int], UpdatableProducer] = {}
        self._loopbacks: dict[EngineId, Loopback] = {}

    def get(self, producer: EngineId) -> UpdatableProducer | None:
        return self._producers.get(producer)

    def with_ingest(self, ingest: EngineId) -> UpdatableProducer | None:
        """Returns the updatable producer whose current ingest producer has this id."""
        found = self._producers.get(ingest.rpartition(".")[0])
        return found if found and found.ingest == ingest else None

    def ingest_of(self, router: EngineId, mapped_ssrc: int) -> tuple[EngineId, Encoding] | None:
        """Returns the ingest producer, and its encoding, that consumers receive with this SSRC."""
        producer = self._by_output.get((router, mapped_ssrc))
        return (producer.ingest, producer.encoding(mapped_ssrc)) if producer and producer.ingest else None

    def produce(self, request: media.Produce, done: Done) -> None:
        """Creates an updatable producer. Raises ValueError as `translation.produce` does."""
        loopback = self._loopbacks.get(request.router.id)
        if loopback is None or loopback.failure:
            loopback = self._loopbacks[request.router.id] = Loopback(self._process, request.router.id)
        producer = UpdatableProducer(self._process, loopback, request)

        def produced(result: media.AnyResult) -> None:
            if producer.closed:
                self._forget(producer)
            done(result)

        self._producers[producer.id] = producer
        self._by_output |= dict.fromkeys(producer.outputs, producer)
        try:
            producer.produce(produced)
        except ValueError:
            self._forget(producer)
            raise

    def close(self, producer: UpdatableProducer) -> None:
        producer.close()
        self._forget(producer)

    def transport_closed(self, transport: EngineId) -> None:
        """Closes the producers of a transport that was closed; the engine has closed their ingest producers."""
        for producer in [p for p in self._producers.values() if p.transport == transport]:
            producer.close(transport_closed=True)
            self._forget(producer)

    def router_closed(self, router: EngineId) -> None:
        """Forgets the producers of a router that was closed; the engine has closed all their parts."""
        self._loopbacks.pop(router, None)
        for producer in [p for p in self._producers.values() if p.router == router]:
            self._forget(producer)

    def _forget(self, producer: UpdatableProducer) -> None:
        producer.closed = True
        if self._producers.get(producer.id) is producer:
            del self._producers[producer.id]
            for output in producer.outputs:
                self._by_output.pop(output, None)
