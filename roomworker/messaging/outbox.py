"""Sends committed messages to gateways, and requests and orders to media nodes, with a batcher for each."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from roomworker.core.journal import Changes, Reply
from roomworker.counters import Counters
from roomworker.storage.retention import Retention
from shared.broker import Broker
from shared.broker.batcher import Batcher
from shared.protocol import bus, media

T = TypeVar("T")


class Receipt:
    """Calls `done` once everything that was counted has been confirmed."""

    __slots__ = ("_done", "_open")

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._open = 1

    def add(self) -> "Receipt":
        """Counts one more item; returns itself."""
        self._open += 1
        return self

    def confirm(self) -> None:
        """Takes the confirm of one item."""
        self._open -= 1
        if self._open == 0:
            self._done()


class QueuedItem(NamedTuple, Generic[T]):
    """An item that waits to be sent, or for its confirm; `size` is its approximate size in bytes."""

    item: T
    size: int
    receipt: Receipt | None = None


ForGateway: TypeAlias = QueuedItem[bus.Message | bus.Applied | Reply]
ForNode: TypeAlias = QueuedItem[media.Command]

APPLIED_SIZE = 48
ORDER_SIZE = 128
REQUEST_SIZE = 1024


class Outbox:
    """All batchers of a worker.

    `requests_lost` is called with the numbers of requests that found no node; `retention` learns which gateways are
    reached.
    """

    def __init__(
        self,
        broker: Broker,
        worker: str,
        requests_lost: Callable[[list[int]], None],
        counters: Counters,
        retention: Retention,
    ) -> None:
        self._retention = retention
        self._counters = counters
        self._broker = broker
        self._worker = worker
        self._requests_lost = requests_lost
        self._gateways: dict[str, Batcher[ForGateway]] = {}
        self._nodes: dict[str, Batcher[ForNode]] = {}
        self.published = 0

    def send_changes(self, changes: Changes, done: Callable[[], None]) -> None:
        """Sends what a commit carried; `done` is called when the broker has all of it."""
        receipt = Receipt(done)
        for message in changes.messages:
            by_gateway: dict[str, list[bus.Recipient]] = {}
            for session, out in message.to:
                if not session.gateway:
                    continue  # the stream keeps it until the session is resumed
                recipient = bus.Recipient(session.connection, session.id, out)
                by_gateway.setdefault(session.gateway, []).append(recipient)
            for gateway, to in by_gateway.items():
                size = len(message.body) + APPLIED_SIZE * len(to)
                queued: ForGateway = QueuedItem(bus.Message(message.body, to, message.close), size, receipt.add())
                self._gateway(gateway).put(queued)
        for session, n_in, n_out in changes.applied:
            if not session.gateway:
                continue
            applied = bus.Applied(session.connection, session.id, n_in, n_out)
            self._gateway(session.gateway).put(QueuedItem(applied, APPLIED_SIZE, receipt.add()))
        for gateway, reply in changes.replies:
            size = APPLIED_SIZE + (len(reply.body) if isinstance(reply, bus.CallAnswer) else 0)
            self._gateway(gateway).put(QueuedItem(reply, size, receipt.add()))
        for node, order in changes.orders:
            self._node(node).put(QueuedItem(media.Command(0, order), ORDER_SIZE, receipt.add()))
        receipt.confirm()

    def send(self, gateway: str, what: bus.Message | bus.Applied | Reply, receipt: Receipt | None = None) -> None:
        """Sends a gateway an item that is not part of a commit; `receipt` learns that the broker has it."""
        size = APPLIED_SIZE + (len(what.body) if isinstance(what, bus.Message) else 0)
        self._gateway(gateway).put(QueuedItem(what, size, receipt))

    def send_order(self, node: str, order: media.AnyOrder) -> None:
        """Sends a media node an order that is committed already."""
        self._node(node).put(QueuedItem(media.Command(0, order), ORDER_SIZE))

    def send_request(self, node: str, n: int, request: media.AnyRequest) -> None:
        """Sends a media node request number `n`."""
        self._node(node).put(QueuedItem(media.Command(n, request), REQUEST_SIZE))

    @property
    def waiting(self) -> int:
        """Messages, reports, requests and orders that are not confirmed yet."""
        to_gateways = sum(batcher.waiting for batcher in self._gateways.values())
        return to_gateways + sum(batcher.waiting for batcher in self._nodes.values())

    def forget_idle(self) -> None:
        """Removes idle batchers, since gateways and nodes come and go."""
        self._gateways = {name: batcher for name, batcher in self._gateways.items() if not batcher.idle}
        self._nodes = {name: batcher for name, batcher in self._nodes.items() if not batcher.idle}

    def close(self) -> None:
        """Closes all batchers; items that are not confirmed yet are given up."""
        for gateway in self._gateways.values():
            gateway.close()
        for node in self._nodes.values():
            node.close()

    def _gateway(self, gateway: str) -> Batcher[ForGateway]:
        batcher = self._gateways.get(gateway)
        if batcher is None:

            def send(items: list[ForGateway]) -> "asyncio.Future[None]":
                messages = [queued.item for queued in items if isinstance(queued.item, bus.Message)]
                applied = [queued.item for queued in items if isinstance(queued.item, bus.Applied)]
                answers = [queued.item for queued in items if isinstance(queued.item, bus.CallAnswer)]
                first = messages[0].to[0].connection if messages else applied[0].connection if applied else 0
                links = [queued.item for queued in items if isinstance(queued.item, bus.Link)]
                body = bus.encode_to_gateway(bus.ToGateway(messages, applied, answers, links, time.time()))
                self._counters.items_to_gateways.observe(len(items))
                self.published += 1
                return self._broker.publish("notify", f"{gateway}.{first}", body, mandatory=True)

            def done(items: list[ForGateway]) -> None:
                self._retention.gateway_reached(gateway, time.monotonic())
                _confirm(items)

            def lost(items: list[ForGateway]) -> None:
                """Counts items of a vanished gateway as sent: the stream keeps them for a replay."""
                self._retention.gateway_unreachable(gateway, time.monotonic())
                _confirm(items)

            batcher = self._gateways[gateway] = Batcher(
                gateway, send, size=_size, on_confirmed=done, on_undeliverable=lost
            )
        return batcher

    def _node(self, node: str) -> Batcher[ForNode]:
        batcher = self._nodes.get(node)
        if batcher is None:

            def send(items: list[ForNode]) -> "asyncio.Future[None]":
                self._counters.items_to_nodes.observe(len(items))
                commands = media.Commands(reply_to=self._worker, commands=[queued.item for queued in items])
                self.published += 1
                return self._broker.publish("media", node, media.encode(commands), mandatory=True)

            def lost(items: list[ForNode]) -> None:
                _confirm(items)
                self._requests_lost([queued.item.n for queued in items if queued.item.n])

            batcher = self._nodes[node] = Batcher(
                node, send, size=_size, on_confirmed=_confirm, on_undeliverable=lost
            )
        return batcher


def _size(queued: QueuedItem[T]) -> int:
    return queued.size


def _confirm(items: list[QueuedItem[T]]) -> None:
    for queued in items:
        if queued.receipt is not None:
            queued.receipt.confirm()
