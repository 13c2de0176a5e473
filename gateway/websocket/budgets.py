"""Accounts for the bytes that all connections of a gateway hold together, and makes room when they are too many."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

STALL_SWEEPS: Final = 20
"""The number of sweeps within which an unfinished message must grow by `PROGRESS_BYTES`, or end."""
PROGRESS_BYTES: Final = 4096
_KEPT: Final = Fraction(7, 8)
"""The part of a limit that is left after room was made, so that it need not be made again for every message."""


class Holder(Protocol):
    """A connection as the books use it (implemented in `gateway.websocket.connection`)."""

    @property
    def unsent_bytes(self) -> int: ...
    @property
    def unfinished_bytes(self) -> int: ...
    @property
    def is_read(self) -> bool: ...

    def cut_unsent(self) -> None: ...
    def cut_unfinished(self) -> None: ...
    def cut_stalled(self) -> None: ...


class ByteBook:
    """The bytes of one kind that each connection holds. Above `limit` the connections that hold the most are cut.

    `measure` returns the bytes of a connection, `cut` makes it give them up.
    """

    def __init__(self, limit: int, measure: Callable[[Holder], int], cut: Callable[[Holder], None]) -> None:
        self.limit = limit
        self.total = 0
        self._measure = measure
        self._cut = cut
        self._sizes: dict[Holder, int] = {}

    def __contains__(self, connection: Holder) -> bool:
        """Whether the connection held something at its last update."""
        return connection in self._sizes

    def update(self, connection: Holder) -> None:
        """Takes note of what a connection holds now."""
        self._note(connection)
        if self.total > self.limit:
            self._make_room()

    def remove(self, connection: Holder) -> None:
        """Forgets a connection, which holds nothing any more."""
        self.total -= self._sizes.pop(connection, 0)

    def refresh(self) -> None:
        """Takes note of what all connections hold now, as some may hold less than at their last update."""
        for connection in list(self._sizes):
            self._note(connection)

    def _note(self, connection: Holder) -> None:
        size, before = self._measure(connection), self._sizes.get(connection, 0)
        if size == before:
            return
        self.total += size - before
        if size:
            self._sizes[connection] = size
        else:
            del self._sizes[connection]

    def _make_room(self) -> None:
        self.refresh()
        for connection in sorted(self._sizes, key=self._sizes.__getitem__, reverse=True):
            if self.total <= self.limit * _KEPT:
                return
            self.remove(connection)
            self._cut(connection)


class UnsentBytes(ByteBook):
    """The bytes in this process that clients have not read yet."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            limit, lambda connection: connection.unsent_bytes, lambda connection: connection.cut_unsent()
        )


@dataclass(slots=True)
class _Progress:
    size: int
    """The size of the message when `sweeps` was 0."""
    sweeps: int = 0


class UnfinishedMessages(ByteBook):
    """The bytes of messages that have begun and not ended. A message that makes no progress is cut, too."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            limit, lambda connection: connection.unfinished_bytes, lambda connection: connection.cut_unfinished()
        )
        self._progress: dict[Holder, _Progress] = {}

    def remove(self, connection: Holder) -> None:
        super().remove(connection)
        self._progress.pop(connection, None)

    def sweep(self) -> None:
        """Cuts messages that make no progress. To be called at regular intervals."""
        for connection, size in list(self._sizes.items()):
            progress = self._progress.setdefault(connection, _Progress(size))
            if not connection.is_read:
                continue  # that it makes no progress is this gateway's doing
            progress.sweeps += 1
            if progress.sweeps < STALL_SWEEPS:
                continue
            if size - progress.size >= PROGRESS_BYTES:
                self._progress[connection] = _Progress(size)
            else:
                self.remove(connection)
                connection.cut_stalled()
