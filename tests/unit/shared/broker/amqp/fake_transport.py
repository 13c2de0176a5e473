"""A transport that keeps what is written to it."""

import asyncio

from pamqp import commands

from tests.support.amqp_frames import decoded


class FakeTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closing = False
        self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.pieces.append(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def acks(self) -> list[tuple[int, bool]]:
        """Takes what was written: tag and `multiple` of each acknowledgement."""
        pieces, self.pieces = self.pieces, []
        methods = [method for piece in pieces for _, method in decoded(piece)]
        return [(it.delivery_tag, it.multiple) for it in methods if isinstance(it, commands.Basic.Ack)]


async def turn() -> None:
    """Lets the event loop run what is scheduled now."""
    for _ in range(3):
        await asyncio.sleep(0)
