"""The bytes of all connections together: unsent ones and unfinished messages."""

from dataclasses import dataclass, field

from gateway.websocket.budgets import PROGRESS_BYTES, STALL_SWEEPS, UnfinishedMessages, UnsentBytes


@dataclass(eq=False)
class Connection:
    unsent_bytes: int = 0
    unfinished_bytes: int = 0
    is_read: bool = True
    cuts: list[str] = field(default_factory=list)

    def cut_unsent(self) -> None:
        self.cuts.append("unsent")

    def cut_unfinished(self) -> None:
        self.cuts.append("unfinished")

    def cut_stalled(self) -> None:
        self.cuts.append("stalled")
        self.unfinished_bytes = 0


def test_largest_are_cut_first_until_an_eighth_is_free() -> None:
    book = UnsentBytes(1000)
    sizes = [100, 300, 50, 400, 140]
    connections = [Connection(unsent_bytes=size) for size in sizes]
    for connection in connections:
        book.update(connection)
    assert book.total == 990
    assert not any(connection.cuts for connection in connections)
    connections[2].unsent_bytes = 61
    book.update(connections[2])
    assert [connection.cuts for connection in connections] == [[], [], [], ["unsent"], []]
    assert book.total == 601


def test_connections_that_were_read_meanwhile_are_not_cut() -> None:
    book = UnsentBytes(1000)
    first, second = Connection(unsent_bytes=900), Connection(unsent_bytes=200)
    book.update(first)
    first.unsent_bytes = 0
    book.update(second)
    assert (book.total, first.cuts, second.cuts) == (200, [], [])


def test_total_follows_what_connections_hold() -> None:
    book = UnsentBytes(1000)
    connection = Connection(unsent_bytes=500)
    book.update(connection)
    connection.unsent_bytes = 300
    assert book.total == 500
    book.refresh()
    assert book.total == 300
    book.remove(connection)
    book.remove(connection)
    assert book.total == 0


def test_one_connection_above_the_limit_is_cut_alone() -> None:
    book = UnfinishedMessages(1000)
    small, large = Connection(unfinished_bytes=10), Connection(unfinished_bytes=1001)
    book.update(small)
    book.update(large)
    assert (small.cuts, large.cuts, book.total) == ([], ["unfinished"], 10)


def test_message_without_progress_is_cut_and_one_with_progress_is_not() -> None:
    book = UnfinishedMessages(10**6)
    stalled, slow, quick = (Connection(unfinished_bytes=100) for _ in range(3))
    for connection in (stalled, slow, quick):
        book.update(connection)
    for sweep in range(3 * STALL_SWEEPS):
        if sweep % STALL_SWEEPS == 5:
            quick.unfinished_bytes += PROGRESS_BYTES
            slow.unfinished_bytes += not slow.cuts
            book.update(quick)
            book.update(slow)
        book.sweep()
    assert (stalled.cuts, slow.cuts, quick.cuts) == (["stalled"], ["stalled"], [])
    assert book.total == quick.unfinished_bytes


def test_message_of_a_socket_that_is_not_read_is_not_stalled() -> None:
    book = UnfinishedMessages(10**6)
    connection = Connection(unfinished_bytes=100, is_read=False)
    book.update(connection)
    for _ in range(2 * STALL_SWEEPS):
        book.sweep()
    assert not connection.cuts


def test_next_message_has_a_time_of_its_own() -> None:
    book = UnfinishedMessages(10**6)
    connection = Connection(unfinished_bytes=100)
    for _ in range(4):
        book.update(connection)
        for _ in range(STALL_SWEEPS - 1):
            book.sweep()
        book.remove(connection)
    assert not connection.cuts
