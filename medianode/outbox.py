"""Sends what a media node has to say to room workers: results, events of engines, and reports.

Each address gets its messages in order, through a `Batcher` of its own.
"""

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from medianode.counters import Counters
from shared.broker import Broker
from shared.broker.batcher import Batcher
from shared.protocol import bus, media
from shared.protocol.media import Answer, AnyEvent, RouterRef
from shared.telemetry import log

RESULT_TIMEOUT = 5.0
"""Seconds after which a room worker has given up on a command, so that its result is not sent."""
LEAVE_TIMEOUT = 2.0
"""Seconds in which results and events must be sent when the node ends."""
PIPE_LIMIT = 50_000
"""Results or events that may wait for one address."""
RESULT_SIZE = 1024
"""Bytes that a result is estimated at."""


class Outbox:
    """The messages of the node with id `node` that wait to be sent."""

    def __init__(self, node: str, broker: Broker, counters: Counters) -> None:
        self._node = node
        self._broker = broker
        self._counters = counters
        self._log = log.get("node").bind(node=node)
        self._results: dict[str, Batcher[Answer]] = {}
        self._events: dict[int, Batcher[bytes]] = {}
        self.events = 0
        """Number of events sent to rooms so far."""

    # --- results ----------------------------------------------------------------------------------------------

    def send_result(self, reply_to: str, answer: Answer) -> None:
        """Sends the result of a command to the room worker's routing key."""
        batcher = self._results.get(reply_to)
        if batcher is None:
            self._forget_idle()
            batcher = self._results[reply_to] = Batcher(
                reply_to,
                partial(self._send_results, reply_to),
                size=lambda _: RESULT_SIZE,
                on_confirmed=_nothing,
                on_undeliverable=_nothing,
                give_up_after=RESULT_TIMEOUT,
                limit=PIPE_LIMIT,
            )
        batcher.put(answer)

    def _forget_idle(self) -> None:
        """Removes the idle batchers: their room workers may have ended."""
        self._results = {address: batcher for address, batcher in self._results.items() if not batcher.idle}

    def _send_results(self, reply_to: str, answers: list[Answer]) -> "asyncio.Future[None]":
        self._counters.answers_out.observe(len(answers))
        body = media.encode(media.Results(self._node, answers))
        return self._broker.publish("media", reply_to, body, mandatory=True)

    # --- events -----------------------------------------------------------------------------------------------

    def send_event(self, router: RouterRef, event: AnyEvent) -> None:
        """Sends an event to the room of the router."""
        self.events += 1
        item = bus.MediaEvent(
            room=router.room,
            incarnation=router.incarnation,
            epoch=router.epoch,
            node=self._node,
            n=self.events,
            event=media.encode_event(event),
        )
        self._batcher_of(router.partition).put(bus.encode_item(item))

    def report(self, present: Iterable[RouterRef], *, lost: bool = False) -> None:
        """Tells each partition which routers its rooms have here (DELIVERY T3).

        Partitions whose rooms were here before are told, too. `lost`: commands of the node's queue were lost.
        """
        routers: dict[int, list[bus.HeldRouter]] = {partition: [] for partition in self._events}
        for it in present:
            held = bus.HeldRouter(it.room, it.incarnation, it.epoch, it.id)
            routers.setdefault(it.partition, []).append(held)
        for partition, held_there in routers.items():
            batcher = self._batcher_of(partition)
            if lost or batcher.idle:  # else the previous report is still being sent
                batcher.put(bus.encode_item(bus.NodeReport(self._node, held_there, lost)))

    def _batcher_of(self, partition: int) -> Batcher[bytes]:
        batcher = self._events.get(partition)
        if batcher is None:
            batcher = self._events[partition] = Batcher(
                f"partition {partition}",
                partial(self._send_events, partition),
                size=len,
                on_confirmed=_nothing,
                on_undeliverable=_nothing,
                limit=PIPE_LIMIT,
            )
        return batcher

    def _send_events(self, partition: int, items: list[bytes]) -> "asyncio.Future[None]":
        return self._broker.publish("rooms", str(partition), bus.encode_batch(self._node, items, time.time()))

    # --- the end ----------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Returns when everything is sent, or after `LEAVE_TIMEOUT`; the rest is discarded then."""
        batchers: list[Batcher[Any]] = [*self._results.values(), *self._events.values()]
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT):
                for batcher in batchers:
                    await batcher.drained()
        except TimeoutError:
            self._log.warning("rabbitmq.unavailable", error="events of the shutdown were not sent")
            for batcher in batchers:
                batcher.close()


def _nothing(_: object) -> None:
    """Ignores confirmed messages, and results whose room worker has ended."""
