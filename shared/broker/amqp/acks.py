"""Gathers the acknowledgements of one channel."""

from shared.broker.amqp import frames
from shared.broker.amqp.writer import FrameWriter


class Acks:
    """Sends acknowledgements together after a short delay, `multiple` over a finished prefix (DELIVERY B3).

    `prefetch` is how many deliveries RabbitMQ gives without an acknowledgement: a quarter of it is not kept waiting.
    """

    def __init__(self, channel: int, writer: FrameWriter, prefetch: int) -> None:
        self._channel = channel
        self._writer = writer
        self._enough = max(1, prefetch // 4)
        self._finished_up_to = 0
        self._finished_beyond: set[int] = set()
        self._unsent: list[int] = []
        self.closed = False
        """True once the channel is closed: RabbitMQ closes the whole connection over a later acknowledgement."""

    def finish(self, tag: int) -> None:
        """Acknowledges a delivery, once. Has no effect after the channel is closed."""
        if self.closed or tag <= self._finished_up_to or tag in self._finished_beyond:
            return
        self._finished_beyond.add(tag)
        while self._finished_up_to + 1 in self._finished_beyond:
            self._finished_up_to += 1
            self._finished_beyond.remove(self._finished_up_to)
        if not self._unsent:
            self._writer.write_from(self._take)
        self._unsent.append(tag)
        if len(self._unsent) == self._enough:
            self._writer.stop_delaying()

    def _take(self) -> bytes:
        if self.closed:
            return b""
        tags, self._unsent = self._unsent, []
        prefix = [tag for tag in tags if tag <= self._finished_up_to]
        acks = [frames.ack(self._channel, tag, multiple=False) for tag in tags if tag > self._finished_up_to]
        if prefix:
            # The greatest of the unsent tags: RabbitMQ closes the channel over a tag that it no longer knows.
            acks.append(frames.ack(self._channel, max(prefix), multiple=len(prefix) > 1))
        return b"".join(acks)
