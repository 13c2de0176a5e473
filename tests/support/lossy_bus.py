"""Steps by which messages between a gateway and a room worker are lost and repeated."""

from typing import Any


class LossyBus:
    """The messages in flight, `up` to the room worker and `down` to the gateway; `at` chooses one of them."""

    up: list[Any]
    down: list[Any]

    def lose_up(self, at: int) -> None:
        if self.up:
            del self.up[at % len(self.up)]

    def lose_down(self, at: int) -> None:
        if self.down:
            del self.down[at % len(self.down)]

    def repeat_up(self, at: int) -> None:
        if self.up:
            self.up.append(self.up[at % len(self.up)])

    def repeat_down(self, at: int) -> None:
        if self.down:
            self.down.append(self.down[at % len(self.down)])
