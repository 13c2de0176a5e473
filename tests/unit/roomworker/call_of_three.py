"""A call of three peers, as the state from which tests start."""

from tests.unit.roomworker.backend import Backend
from tests.unit.roomworker.room_harness import RoomHarness


class CallOfThree:
    """alice sends producer 10 over transport 1, bob receives it over transport 2, carol could receive it."""

    def __init__(self, kind: str = "audio", harness: RoomHarness | None = None) -> None:
        self.harness = harness or RoomHarness()
        self.alice = self.harness.sending("alice")
        self.bob = self.harness.receiving("bob")
        self.carol = self.harness.receiving("carol")
        self.consumer = self.alice.produce(10, kind)
        assert self.bob.enable(self.consumer)["ok"]
        self.backend = Backend(self.harness)
        self.clear_sent()

    def clear_sent(self) -> None:
        self.harness.orders.clear()
        for client in (self.alice, self.bob, self.carol):
            client.clear_sent()

    @property
    def producer_engine(self) -> str:
        """alice's producer on the media node."""
        return self.harness.room.peers["alice"].producers[10].engine

    @property
    def consumer_engine(self) -> str:
        """bob's consumer on the media node."""
        return self.harness.room.peers["bob"].consumers[self.consumer].engine

    @property
    def notified(self) -> dict[str, list[str]]:
        """The methods of the notifications since `clear_sent`, by peer."""
        everybody = (self.alice, self.bob, self.carol)
        return {client.peer: client.methods for client in everybody if client.methods}

    @property
    def ordered(self) -> list[tuple[type, str]]:
        return [(type(order), order.object) for order in self.harness.orders]
