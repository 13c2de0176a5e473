"""Producers whose client may change its SSRCs (§updateProducer), on an engine that cannot.

The engine fixes a producer's SSRCs when it is made, and closes its consumers with it. So an updatable producer
has two halves, with the router's loopback between them: the inner one takes what the client sends and is
replaced at an update; the outer one has the id that consumers know, and stays. What must not show then:

* In sequence numbers, because SRTP takes a step back for a replay.
* In the timestamps of video: browsers' pictures stood still, for seconds or for ever, after a step back. They play
  audio on (under 200 ms were concealed).

Video is *stitched*: each inner half is a stream of its own of a third producer, the seam, and one consumer of that
makes a single stream of them, which goes round to the outer half. To the engine these are the layers of a simulcast,
between which it switches at a key frame, with numbers, picture ids and timestamps going on. It does so when sender
reports of the first stream and of the new one have come round, on the average half a second later; therefore an
inner half is retired first, and closed when its report has come for certain.

The engine does that for VP8 and H264. All else is *resumed* where it stopped. The pipe consumer of a new inner
half begins at number 1, so

* the outer half is paused, which makes all its consumers go on at the first packet after it resumes, with the
  number after their last, but with the sender's own timestamps;
* it resumes only when the packets of the old inner half that were under way have passed (`_ROUNDS`);
* it is shown a packet numbered 0 before: a receiver takes a jump for an error until two packets in a row agree,
  and would drop the first.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from medianode.engines.mediasoup import relays, translation
from medianode.engines.mediasoup.answers import failed
from medianode.engines.mediasoup.channel import Response
from medianode.engines.mediasoup.loopback import Loopback
from medianode.engines.mediasoup.process import Answered, EngineProcess
from medianode.engines.port import Done
from shared.protocol import media
from shared.protocol.media import EngineId, Failed
from shared.protocol.rtp import Encoding, PayloadTypeMapping, RtpParameters

# After its answer the engine reads the loopback at least once before it takes another request, 32 packets each
# time, and no more than that get into it in between.
_ROUNDS = 3
# How often a stitched producer may change its SSRCs, and once more. The engine has two digits for layers.
STREAMS = 64
# Seconds, twice of what the engine lets pass before the first sender report of a stream.
RETIREMENT = 3.0
_CLOSED = Failed(404, "the producer was closed")


class Updatable:
    """One producer. All calls take effect in their order; an update takes some round trips."""

    def __init__(self, process: EngineProcess, loopback: Loopback, request: media.Produce) -> None:
        self.id = request.producer
        self.router = request.router.id
        self.transport = request.transport
        self.inner: EngineId | None = None
        self.closed = False
        self._process = process
        self._loopback = loopback
        self._request = request
        self._encodings = request.rtp_parameters.encodings
        self._stitched = relays.stitchable(request)
        self._streams = [loopback.new_ssrcs(STREAMS) if self._stitched else [ssrc] for ssrc in request.mapped_ssrcs]
        self._seam_end = loopback.exit
        self._outer_end = loopback.entrance if self._stitched else loopback.exit
        self._paused = request.paused
        self._made = 0
        self._generation = 0
        self._working = False
        self._held = False
        self._names = relays.names(request.rtp_parameters)
        self._retired: dict[EngineId, frozenset[int | str]] = {}
        self._loop = asyncio.get_running_loop()
        self._updates: deque[tuple[media.UpdateProducer, Done]] = deque()

    @property
    def sources(self) -> list[tuple[EngineId, int]]:
        """What it is told by where consumers see it: router and SSRC."""
        return [(self.router, ssrc) for ssrc in self._request.mapped_ssrcs]

    def encoding(self, mapped_ssrc: int) -> Encoding:
        """The client's one that consumers know by this SSRC."""
        return self._encodings[self._request.mapped_ssrcs.index(mapped_ssrc)]

    # --- produce ----------------------------------------------------------------------------------------------

    def produce(self, done: Done) -> None:
        """Raises ValueError as `translation.produce` does, and has done nothing then."""
        inner = self._next_inner(self._request.rtp_parameters, self._request.payload_types)
        outer = relays.outer(self._request)
        answers: list[Response] = []

        def produced(answer: Response) -> None:
            answers.append(answer)
            self._loopback.when_settled(lambda: self._produced(answers, done))

        self._working = True
        self._process.request("transport.produce", self.transport, inner, answers.append)
        if answers:
            self._produced(answers, done)  # refused before it was sent
            return
        self.inner = inner["producerId"]
        self._pipe(answers.append)
        for name, streams, ssrc in self._seams():
            seam = relays.seam(self._request, name, streams)
            self._process.request("transport.produce", self._seam_end, seam, answers.append, must=True)
            stitch = relays.stitch(self._request, name, streams, ssrc)
            self._process.request("transport.consume", self._seam_end, stitch, answers.append, must=True)
        self._process.request("transport.produce", self._outer_end, outer, produced, must=True)

    def _produced(self, answers: list[Response], done: Done) -> None:
        failure = next((failed(answer) for answer in answers if answer.error), self._loopback.failure)
        if failure:
            self.close()
        self._finish(failure or media.Produced(), done)

    def _seams(self) -> Iterator[tuple[EngineId, list[int], int]]:
        """Of each encoding: the seam's id, its streams, and the SSRC they become."""
        if self._stitched:
            for index, ssrc in enumerate(self._request.mapped_ssrcs):
                yield f"{self.id}.seam.{index}", self._streams[index], ssrc

    def _next_inner(self, parameters: RtpParameters, payload_types: list[PayloadTypeMapping]) -> translation.Dict:
        """Raises ValueError."""
        inner = translation.produce(
            msgspec.structs.replace(
                self._request,
                producer=f"{self.id}.{self._made + 1}",
                rtp_parameters=relays.unnamed(parameters),
                payload_types=payload_types,
                mapped_ssrcs=self._ssrcs(self._made),
                paused=self._paused,
            )
        )
        self._made += 1
        return inner

    def _ssrcs(self, inner: int) -> list[int]:
        return [streams[inner if self._stitched else 0] for streams in self._streams]

    def _pipe(self, answered: Answered) -> None:
        assert self.inner
        pipe = relays.pipe(self._request, self.inner, self._ssrcs(self._made - 1))
        self._process.request("transport.consume", self._loopback.entrance, pipe, answered, must=True)

    # --- update -----------------------------------------------------------------------------------------------

    def update(self, request: media.UpdateProducer, done: Done) -> None:
        """One at a time, in their order."""
        if self.closed:
            done(_CLOSED)
        elif self._working:
            self._updates.append((request, done))
        elif request.generation <= self._generation:
            done(media.Produced())
        elif self._stitched and self._made == STREAMS:
            done(Failed(409, f"the producer was updated {STREAMS - 1} times: it must be made anew"))
        else:
            try:
                inner = self._next_inner(request.rtp_parameters, request.payload_types)
            except ValueError as error:
                done(Failed(400, str(error)))
            else:
                self._working = True
                self._replace(inner, request, done)

    def _replace(self, inner: translation.Dict, request: media.UpdateProducer, done: Done) -> None:
        names = relays.names(request.rtp_parameters)
        if self._stitched and self.inner:
            self._retire(self.inner)
            self.inner = None
        if any(names & taken for taken in self._retired.values()):
            # The engine knows an SSRC of a transport's once.
            self._loop.call_later(RETIREMENT, self._replace, inner, request, done)
        elif self.closed:
            self._finish(_CLOSED, done)
        else:
            self._encodings = request.rtp_parameters.encodings
            self._names = names
            self._exchange(inner, request.generation, done)

    def _retire(self, inner: EngineId) -> None:
        self._process.tell("producer.pause", inner)
        self._retired[inner] = self._names
        self._loop.call_later(RETIREMENT, self._close_retired, inner)

    def _close_retired(self, inner: EngineId) -> None:
        if self._retired.pop(inner, None):
            self._close_inner(inner)

    def _exchange(self, inner: translation.Dict, generation: int, done: Done) -> None:
        def produced(answer: Response) -> None:
            if self.closed:
                self._finish(_CLOSED, done)
            elif answer.error:
                self.inner = None
                self._let_flow()
                self._finish(failed(answer), done)
            elif self._stitched:
                self._pipe(piped)
            else:
                for packet in relays.first_packets(self._request):
                    self._process.inject(self.id, packet)
                self._wait(_ROUNDS, settled)

        def settled() -> None:
            if self.closed:
                self._finish(_CLOSED, done)
                return
            self._let_flow()
            self._pipe(piped)

        def piped(answer: Response) -> None:
            if not answer.error:
                self._generation = generation
            self._finish(failed(answer) if answer.error else media.Produced(), done)

        if not self._stitched:
            self._held = True
            self._process.tell("producer.pause", self.id)
            # First, because the new SSRCs may be the old ones in part.
            self._close_inner(self.inner)
        self.inner = inner["producerId"]
        self._process.request("transport.produce", self.transport, inner, produced, must=True)

    def _wait(self, rounds: int, then: Callable[[], None]) -> None:
        """For so many round trips."""
        if rounds and not self.closed:
            self._process.request(
                "producer.getStats", self.id, None, lambda _: self._wait(rounds - 1, then), must=True
            )
        else:
            then()

    def _let_flow(self) -> None:
        if self._held and not self._paused:
            self._process.tell("producer.resume", self.id)
        self._held = False

    def _finish(self, result: media.AnyResult, done: Done) -> None:
        self._working = False
        done(result)
        while self._updates and not self._working:
            self.update(*self._updates.popleft())

    # --- orders -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self._paused = True
        if self.inner:
            self._process.tell("producer.pause", self.inner)
        self._process.tell("producer.pause", self.id)

    def resume(self) -> None:
        self._paused = False
        if not self._held:
            self._process.tell("producer.resume", self.id)
        if self.inner:
            self._process.tell("producer.resume", self.inner)

    def close(self) -> None:
        self.closed = True
        for inner in (self.inner, *self._retired):
            self._close_inner(inner)
        self.inner = None
        self._retired.clear()
        for name, _, _ in self._seams():
            self._process.tell("transport.closeProducer", self._seam_end, {"producerId": name})
        self._process.tell("transport.closeProducer", self._outer_end, {"producerId": self.id})

    def _close_inner(self, inner: EngineId | None) -> None:
        """And the pipe consumer with it."""
        if inner:
            self._process.tell("transport.closeProducer", self.transport, {"producerId": inner})


class Updatables:
    """Those of one engine."""

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._producers: dict[EngineId, Updatable] = {}
        self._sources: dict[tuple[EngineId, int], Updatable] = {}
        self._loopbacks: dict[EngineId, Loopback] = {}

    def get(self, producer: EngineId) -> Updatable | None:
        return self._producers.get(producer)

    def behind(self, inner: EngineId) -> Updatable | None:
        """Whose inner half that is."""
        found = self._producers.get(inner.rpartition(".")[0])
        return found if found and found.inner == inner else None

    def source(self, router: EngineId, mapped_ssrc: int) -> tuple[EngineId, Encoding] | None:
        """The inner half and its encoding that comes out of the loopback with this SSRC."""
        producer = self._sources.get((router, mapped_ssrc))
        return (producer.inner, producer.encoding(mapped_ssrc)) if producer and producer.inner else None

    def produce(self, request: media.Produce, done: Done) -> None:
        """Raises ValueError as `translation.produce` does."""
        loopback = self._loopbacks.get(request.router.id)
        if loopback is None or loopback.failure:
            loopback = self._loopbacks[request.router.id] = Loopback(self._process, request.router.id)
        producer = Updatable(self._process, loopback, request)

        def produced(result: media.AnyResult) -> None:
            if producer.closed:
                self._forget(producer)
            done(result)

        self._producers[producer.id] = producer
        self._sources |= dict.fromkeys(producer.sources, producer)
        try:
            producer.produce(produced)
        except ValueError:
            self._forget(producer)
            raise

    def close(self, producer: Updatable) -> None:
        producer.close()
        self._forget(producer)

    def transport_closed(self, transport: EngineId) -> None:
        """The engine has closed the inner halves."""
        for producer in [p for p in self._producers.values() if p.transport == transport]:
            self.close(producer)

    def router_closed(self, router: EngineId) -> None:
        """The engine has closed all of it."""
        self._loopbacks.pop(router, None)
        for producer in [p for p in self._producers.values() if p.router == router]:
            self._forget(producer)

    def _forget(self, producer: Updatable) -> None:
        producer.closed = True
        if self._producers.get(producer.id) is producer:
            del self._producers[producer.id]
            for source in producer.sources:
                self._sources.pop(source, None)
