"""The view of a peer's media: checks that the peer is notified of everything that others do with theirs."""

from collections.abc import Callable, Iterable
from typing import Any

from loadtest.model.event_order import END, Key, Member
from loadtest.model.recorder import Recorder
from loadtest.model.room import Room
from loadtest.model.room_view import Consumer, OnConsumer, RoomView


class MediaView(RoomView):
    """Checks media that only peers close: a transport that the server closes is a failure."""

    def __init__(
        self,
        room: Room,
        member: Member,
        recorder: Recorder,
        on_consumer: OnConsumer,
        on_transport_closed: Callable[[], None],
    ) -> None:
        super().__init__(room, member, recorder)
        self._on_consumer = on_consumer
        self._on_transport_closed = on_transport_closed

    def leaving(self) -> dict[int, int]:
        """Returns for each consumer the turns that the peer must have been notified of if it leaves now."""
        return {id_: it.pauses.turns.answered for id_, it in self.consumers.items() if it.pauses}

    def check_pauses(self, known: dict[int, int]) -> None:
        """Checks all consumers when a leave is answered; `known` is what `leaving` returned when it was sent."""
        for id_, consumer in self.consumers.items():
            if (pauses := consumer.pauses) is not None:
                pauses.stop(known.get(id_, pauses.least), pauses.turns.asked, self._recorder.fail)

    def _numbers(self, consumers: Iterable[dict[str, Any]]) -> frozenset[int]:
        return frozenset(it["appData"]["n"] for it in consumers)

    def _life_of(self, consumer: Any) -> int:
        life: int = consumer["appData"]["life"]
        return life

    def _add_consumer(self, data: Any) -> Consumer:
        consumer = super()._add_consumer(data)
        consumer.n = data["appData"]["n"]
        return consumer

    def _new_consumer(self, data: Any, now: float) -> None:
        self._recorder.current.notified("newConsumer", now - data["appData"]["t"])
        consumer = self._add_consumer(data)
        self.observe(Key(consumer.source, consumer.life, consumer.n), "producer")
        self._on_consumer(data["id"], now)

    def _consumer_closed(self, id_: int) -> None:
        consumer = self.consumers[id_]
        n = self._room.life(consumer.source, consumer.life).closes.get(consumer.n)
        self._stop_listening(id_, exact=n is not None)
        if n is None:
            self._fail("mismatch", f"consumerClosed {id_} of {consumer.source}, who did not close it")
        else:
            self.observe(Key(consumer.source, consumer.life, n), "close", consumer.n)

    def _remove_consumers_of(self, source: str, leave: int) -> None:
        for id_ in [id_ for id_, it in self.consumers.items() if it.source == source]:
            self._stop_listening(id_, exact=leave != END)

    def _stop_listening(self, id_: int, *, exact: bool) -> None:
        """Ends a consumer. `exact`: its producer's peer closed it, so that all earlier turns were carried out."""
        if (pauses := self.consumers.pop(id_).pauses) is not None:
            turns = pauses.turns
            pauses.stop(turns.asked if exact else turns.answered, turns.asked, self._recorder.fail)

    def _source_paused(self, id_: int, *, paused: bool) -> None:
        consumer = self.consumers.get(id_)
        if consumer is None or consumer.pauses is None:
            what = "consumerPaused" if paused else "consumerResumed"
            self._fail("mismatch", f"{what} {id_}, which is not enabled")
        else:
            consumer.pauses.observe(paused, self._recorder.fail)

    def _transport_closed(self, id_: int) -> None:
        self._fail("mismatch", f"transportClosed {id_}: its media is lost")
        self._on_transport_closed()
