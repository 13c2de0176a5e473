"""Producers whose client may change its SSRCs (§updateProducer), on an engine that cannot change them.

The engine fixes a producer's SSRCs when it is created, and closes a producer's consumers with it. Therefore an
updatable producer consists of two producers of the engine, connected by the router's loopback: the *ingest* producer
takes what the client sends and is replaced at every update; the *public* producer has the id that consumers know, and
stays. Receivers must not see the replacement:

* in sequence numbers, because SRTP takes a step back for a replay;
* in the timestamps of video, because browsers' pictures froze after a step back, for seconds or for ever. Audio
  played on (gaps below 200 ms were concealed).

For VP8 and H264 the engine *switches*: the loopback carries each ingest producer as a stream of its own to a *switch*
producer, to which these streams are the layers of a simulcast. A consumer of it, which always prefers the newest
layer, makes a single stream of them for the public producer. The engine switches between layers at a key frame and
continues sequence numbers, picture ids and timestamps. It does so when it has a sender report of the old and of the
new stream, at most 1.5 s later; therefore an old ingest producer is first paused, and closed when its report has
certainly passed the loopback. If the client uses its SSRCs again before, it is closed at once, and timestamps may
step: an answer that waited would make the media node look dead to room workers. The engine sends no report of a
stream that has been silent for 2 s: if it stands still for so long just then, before the old stream's first report,
timestamps do step, and pictures freeze. An engine without Plenary's patches switches only 5 s after the old stream's
end, and timestamps step if that stream was shorter than about 4 s.

For all other codecs the public producer is *paused* during the replacement. Pausing it makes all its consumers
continue, at the first packet after it resumes, with the number after their last, but with the sender's own
timestamps. The producer resumes only after the old ingest producer's packets on the loopback have passed
(`_ROUND_TRIPS`). The pipe consumer of a new ingest producer begins at a random sequence number. A receiver takes a
jump for an error until two consecutive packets agree, so that the first packet after an update is often lost: of
audio 20 ms, which receivers conceal.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from medianode.engines.mediasoup import relay_parameters, translation
from medianode.engines.mediasoup.answers import failed
from medianode.engines.mediasoup.channel import Response
from medianode.engines.mediasoup.loopback import Loopback
from medianode.engines.mediasoup.process import Answered, EngineProcess
from medianode.engines.port import Done
from shared.protocol import media
from shared.protocol.media import EngineId, Failed
from shared.protocol.rtp import Encoding, PayloadTypeMapping, RtpParameters

_ROUND_TRIPS = 3
"""Requests to wait for until the loopback is empty.

After each answer the engine reads at least once from the loopback, 32 packets each time, and no more packets than
that enter the loopback in between.
"""
STREAMS = 64
"""Ingest producers that a switch producer can have in its life. The engine has two digits for layers."""
RETIREMENT_SECONDS = 3.0
"""Seconds from pausing an old ingest producer to closing it: twice the time until a stream's first sender report."""
_CLOSED = Failed(404, "the producer was closed")


class UpdatableProducer:
    """A producer whose SSRCs can be replaced. Calls take effect in their order; an update takes some round trips."""

    def __init__(self, process: EngineProcess, loopback: Loopback, request: media.Produce) -> None:
        self.id = request.producer
        self.router = request.router.id
        self.transport = request.transport
        self.ingest: EngineId | None = None
        self.closed = False
        self._process = process
        self._loopback = loopback
        self._request = request
        self._encodings = request.rtp_parameters.encodings
        self._switching = relay_parameters.can_switch(request)
        self._streams = [loopback.new_ssrcs(STREAMS) if self._switching else [ssrc] for ssrc in request.mapped_ssrcs]
        self._switch_transport = loopback.exit
        self._public_transport = loopback.entrance if self._switching else loopback.exit
        self._paused = request.paused
        self._ingest_count = 0
        self._generation = 0
        self._busy = False
        self._paused_for_update = False
        self._packet_ids = relay_parameters.packet_ids(request.rtp_parameters)
        self._retired: dict[EngineId, frozenset[int | str]] = {}
        self._loop = asyncio.get_running_loop()
        self._updates: deque[tuple[media.UpdateProducer, Done]] = deque()

    @property
    def outputs(self) -> list[tuple[EngineId, int]]:
        """Router and SSRC of each stream that consumers receive."""
        return [(self.router, ssrc) for ssrc in self._request.mapped_ssrcs]

    def encoding(self, mapped_ssrc: int) -> Encoding:
        """Returns the client's encoding that consumers know by this SSRC."""
        return self._encodings[self._request.mapped_ssrcs.index(mapped_ssrc)]

    # --- produce ----------------------------------------------------------------------------------------------

    def produce(self, done: Done) -> None:
        """Creates all parts in the engine. Raises ValueError as `translation.produce` does, before any request."""
        ingest = self._next_ingest(self._request.rtp_parameters, self._request.payload_types)
        public = relay_parameters.public_producer(self._request)
        answers: list[Response] = []

        def produced(answer: Response) -> None:
            answers.append(answer)
            self._loopback.when_ready(lambda: self._produced(answers, done))

        self._busy = True
        self._process.request("TRANSPORT_PRODUCE", self.transport, ingest, answers.append)
        if answers:
            self._produced(answers, done)  # the request failed before it was sent
            return
        self.ingest = ingest["producer_id"]
        self._pipe(answers.append)
        for name, streams, ssrc in self._switches():
            producer = relay_parameters.switch_producer(self._request, name, streams)
            self._process.request("TRANSPORT_PRODUCE", self._switch_transport, producer, answers.append, must=True)
            consumer = relay_parameters.switch_consumer(self._request, name, streams, ssrc)
            self._process.request("TRANSPORT_CONSUME", self._switch_transport, consumer, answers.append, must=True)
        self._process.request("TRANSPORT_PRODUCE", self._public_transport, public, produced, must=True)

    def _produced(self, answers: list[Response], done: Done) -> None:
        failure = next((failed(answer) for answer in answers if answer.error), self._loopback.failure)
        if failure:
            self.close()
        self._finish(failure or media.Produced(), done)

    def _switches(self) -> Iterator[tuple[EngineId, list[int], int]]:
        """Yields for each encoding the switch producer's id, its streams, and the SSRC they become."""
        if self._switching:
            for index, ssrc in enumerate(self._request.mapped_ssrcs):
                yield f"{self.id}.switch.{index}", self._streams[index], ssrc

    def _next_ingest(self, parameters: RtpParameters, payload_types: list[PayloadTypeMapping]) -> translation.Dict:
        """Returns the engine's parameters of the next ingest producer. Raises ValueError."""
        ingest = translation.produce(
            msgspec.structs.replace(
                self._request,
                producer=f"{self.id}.{self._ingest_count + 1}",
                rtp_parameters=relay_parameters.without_mux_id(parameters),
                payload_types=payload_types,
                mapped_ssrcs=self._ssrcs(self._ingest_count),
                paused=self._paused,
            )
        )
        self._ingest_count += 1
        return ingest

    def _ssrcs(self, ingest_index: int) -> list[int]:
        return [streams[ingest_index if self._switching else 0] for streams in self._streams]

    def _pipe(self, answered: Answered) -> None:
        assert self.ingest
        pipe = relay_parameters.pipe_consumer(self._request, self.ingest, self._ssrcs(self._ingest_count - 1))
        self._process.request("TRANSPORT_CONSUME", self._loopback.entrance, pipe, answered, must=True)

    # --- update -----------------------------------------------------------------------------------------------

    def update(self, request: media.UpdateProducer, done: Done) -> None:
        """Replaces the client's SSRCs and codecs. Updates are carried out one at a time, in their order.

        A request whose generation is not above the last one's was carried out before, and succeeds.
        """
        if self.closed:
            done(_CLOSED)
        elif self._busy:
            self._updates.append((request, done))
        elif request.generation <= self._generation:
            done(media.Produced())
        elif self._switching and self._ingest_count == STREAMS:
            done(Failed(409, f"the producer was updated {STREAMS - 1} times: create it anew"))
        else:
            try:
                ingest = self._next_ingest(request.rtp_parameters, request.payload_types)
            except ValueError as error:
                done(Failed(400, str(error)))
            else:
                self._busy = True
                self._replace(ingest, request, done)

    def _replace(self, ingest: translation.Dict, request: media.UpdateProducer, done: Done) -> None:
        packet_ids = relay_parameters.packet_ids(request.rtp_parameters)
        if self._switching and self.ingest:
            self._retire(self.ingest)
            self.ingest = None
        # A transport of the engine may have each SSRC once only.
        for retired in [retired for retired, taken in self._retired.items() if packet_ids & taken]:
            self._close_retired(retired)
        self._encodings = request.rtp_parameters.encodings
        self._packet_ids = packet_ids
        self._exchange(ingest, request.generation, done)

    def _retire(self, ingest: EngineId) -> None:
        self._process.tell("PRODUCER_PAUSE", ingest)
        self._retired[ingest] = self._packet_ids
        self._loop.call_later(RETIREMENT_SECONDS, self._close_retired, ingest)

    def _close_retired(self, ingest: EngineId) -> None:
        if self._retired.pop(ingest, None):
            self._close_ingest(ingest)

    def _exchange(self, ingest: translation.Dict, generation: int, done: Done) -> None:
        def produced(answer: Response) -> None:
            if self.closed:
                self._finish(_CLOSED, done)
            elif answer.error:
                self.ingest = None
                self._resume_after_update()
                self._finish(failed(answer), done)
            elif self._switching:
                self._pipe(piped)
            else:
                self._after_round_trips(_ROUND_TRIPS, settled)

        def settled() -> None:
            if self.closed:
                self._finish(_CLOSED, done)
                return
            self._resume_after_update()
            self._pipe(piped)

        def piped(answer: Response) -> None:
            if not answer.error:
                self._generation = generation
            self._finish(failed(answer) if answer.error else media.Produced(), done)

        if not self._switching:
            self._paused_for_update = True
            self._process.tell("PRODUCER_PAUSE", self.id)
            # The old producer is closed first, because the new SSRCs may be the old ones in part.
            self._close_ingest(self.ingest)
        self.ingest = ingest["producer_id"]
        self._process.request("TRANSPORT_PRODUCE", self.transport, ingest, produced, must=True)

    def _after_round_trips(self, rounds: int, then: Callable[[], None]) -> None:
        """Calls `then` after so many round trips to the engine, or at once if the producer is closed."""
        if rounds and not self.closed:
            self._process.request(
                "PRODUCER_GET_STATS", self.id, None, lambda _: self._after_round_trips(rounds - 1, then), must=True
            )
        else:
            then()

    def _resume_after_update(self) -> None:
        if self._paused_for_update and not self._paused:
            self._process.tell("PRODUCER_RESUME", self.id)
        self._paused_for_update = False

    def _finish(self, result: media.AnyResult, done: Done) -> None:
        self._busy = False
        done(result)
        while self._updates and not self._busy:
            self.update(*self._updates.popleft())

    # --- orders -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self._paused = True
        if self.ingest:
            self._process.tell("PRODUCER_PAUSE", self.ingest)
        self._process.tell("PRODUCER_PAUSE", self.id)

    def resume(self) -> None:
        self._paused = False
        if not self._paused_for_update:
            self._process.tell("PRODUCER_RESUME", self.id)
        if self.ingest:
            self._process.tell("PRODUCER_RESUME", self.ingest)

    def close(self, *, transport_closed: bool = False) -> None:
        """Closes all parts. With the client's transport the engine has closed the ingest producers already.

        The engine logs an error when it is to close what does not exist.
        """
        self.closed = True
        if not transport_closed:
            for ingest in (self.ingest, *self._retired):
                self._close_ingest(ingest)
        self.ingest = None
        self._retired.clear()
        for name, _, _ in self._switches():
            self._process.tell("TRANSPORT_CLOSE_PRODUCER", self._switch_transport, {"producer_id": name})
        self._process.tell("TRANSPORT_CLOSE_PRODUCER", self._public_transport, {"producer_id": self.id})

    def _close_ingest(self, ingest: EngineId | None) -> None:
        """Closes an ingest producer, with which the engine closes its pipe consumer."""
        if ingest:
            self._process.tell("TRANSPORT_CLOSE_PRODUCER", self.transport, {"producer_id": ingest})
