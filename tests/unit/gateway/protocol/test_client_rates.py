"""A client that connects again goes on with the rate that it has left."""

import pytest

from gateway.protocol import client_rates
from gateway.protocol.client_rates import ClientRates
from gateway.protocol.rate_limit import ClientRate

ALICE = ("room", "alice")
GRACE = 15.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> ClientRates:
    return ClientRates(clock, per_second=10, burst=100, bytes_per_second=1000, grace=GRACE)


def admitted(rate: ClientRate) -> int:
    """Sends until a message is refused; returns how many were not."""
    count = 0
    while rate.admit_message():
        count += 1
    return count


def connect(rates: ClientRates, client: tuple[str, str] = ALICE, *, resumed: bool = False) -> int:
    """Connects, sends as much as is admitted, and leaves; returns how much that was."""
    rate = rates.enter(client, resumed=resumed)
    count = admitted(rate)
    rates.leave(client, rate)
    return count


@pytest.mark.parametrize("resumed", [False, True])
def test_client_that_connects_again_at_once_has_no_new_burst(rates: ClientRates, resumed: bool) -> None:
    assert connect(rates) == 100
    assert [connect(rates, resumed=resumed) for _ in range(50)] == [0] * 50


def test_connection_that_replaces_an_open_one_goes_on_from_it(rates: ClientRates) -> None:
    first = rates.enter(ALICE, resumed=False)
    assert admitted(first) == 100
    second = rates.enter(ALICE, resumed=False)
    rates.leave(ALICE, first)
    assert admitted(second) == 0
    rates.leave(ALICE, second)
    assert connect(rates) == 0


def test_messages_over_many_connections_never_exceed_the_rate(rates: ClientRates, clock: Clock) -> None:
    total = 0
    for step in range(200):
        total += connect(rates, resumed=step % 2 == 0)
        clock.now += 0.1
    assert 100 + 10 * 19 <= total <= 100 + 10 * 20 + 20  # what a resumed one may send for its time away is a tenth


def test_rested_client_has_its_whole_burst(rates: ClientRates, clock: Clock) -> None:
    connect(rates)
    clock.now += 10
    assert connect(rates) == 100


def test_resumed_client_may_send_what_its_absence_allowed(rates: ClientRates, clock: Clock) -> None:
    connect(rates)
    clock.now += 12
    assert connect(rates, resumed=True) == 100 + 10 * 12


def test_resumed_client_of_another_gateway_may_send_what_the_grace_allows(rates: ClientRates) -> None:
    assert connect(rates, resumed=True) == 100 + 10 * GRACE


def test_bytes_and_refusals_count_on(rates: ClientRates) -> None:
    rate = rates.enter(ALICE, resumed=False)
    assert rate.spend_bytes(1_000_000)
    admitted(rate)
    for _ in range(200):
        rate.admit_message()
    rates.leave(ALICE, rate)
    again = rates.enter(ALICE, resumed=False)
    assert again.begin_pause() > 100, "bytes are paid for before anything else is read"
    assert not again.is_rested


def test_others_are_not_affected(rates: ClientRates) -> None:
    connect(rates)
    assert connect(rates, ("room", "bob")) == 100
    assert connect(rates, ("other room", "alice")) == 100


def test_rested_clients_are_forgotten_after_the_grace(rates: ClientRates, clock: Clock) -> None:
    for number in range(100):
        rate = rates.enter(("room", f"peer{number}"), resumed=False)
        rates.leave(("room", f"peer{number}"), rate)
    assert rates.remembered == 100
    clock.now += GRACE
    connect(rates)
    assert rates.remembered == 1


def test_the_clients_that_left_first_are_forgotten_beyond_the_limit(
    rates: ClientRates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_rates, "REMEMBERED_LIMIT", 10)
    for number in range(30):
        connect(rates, ("room", f"peer{number}"))
    assert rates.remembered == 10
    assert connect(rates, ("room", "peer0")) == 100
    assert connect(rates, ("room", "peer29")) == 0
