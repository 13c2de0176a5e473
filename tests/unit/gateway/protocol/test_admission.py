"""What one address, and all together, may have of a gateway."""

from typing import Any

import pytest

from gateway.protocol import admission
from gateway.protocol.addresses import parse_networks
from gateway.protocol.admission import BURST_SECONDS, Admission, AdmissionLimits, Refused

ALICE, BOB = "192.0.2.1", "198.51.100.2"
PROXY = "10.0.0.1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitting(clock: Any = None, **limits: float) -> Admission:
    made = AdmissionLimits(**limits)  # type: ignore[arg-type]
    return Admission(made, parse_networks("10.0.0.0/8"), clock or Clock())


def refused(made: Admission, host: str) -> tuple[str, bool]:
    with pytest.raises(Refused) as caught:
        made.accept(host, 1)
    return caught.value.reason, caught.value.temporary


def test_an_address_has_its_connections_and_no_more() -> None:
    made = admitting(connections_per_address=2)
    first, _ = made.accept(ALICE, 1), made.accept(ALICE, 2)
    assert refused(made, ALICE) == ("address_connections", False)
    made.accept(BOB, 1)
    first.release()
    first.release()
    made.accept(ALICE, 3)
    assert refused(made, ALICE) == ("address_connections", False)
    assert (made.open, made.addresses) == (3, 2)


def test_addresses_of_one_ipv6_network_are_counted_together() -> None:
    made = admitting(connections_per_address=2)
    made.accept("2001:db8:1:2::1", 1)
    made.accept("2001:db8:1:2:ffff::1", 1)
    assert refused(made, "2001:db8:1:2::3") == ("address_connections", False)
    made.accept("2001:db8:1:3::1", 1)


@pytest.mark.parametrize("limit", ["connections", "files"])
def test_all_connections_are_bounded(limit: str) -> None:
    made = admitting(**{limit: 2})
    first, _ = made.accept(ALICE, 1), made.accept(PROXY, 1)
    assert refused(made, BOB) == (limit, True)
    assert refused(made, PROXY) == (limit, True)
    first.release()
    made.accept(BOB, 1)


def test_the_rate_of_an_address_takes_nothing_from_others() -> None:
    clock = Clock()
    made = admitting(clock, rate_per_address=1, rate=2)
    for _ in range(BURST_SECONDS):
        made.accept(ALICE, 1).release()
    for _ in range(100):
        assert refused(made, ALICE) == ("address_rate", False)
    for _ in range(BURST_SECONDS):
        made.accept(BOB, 1).release()
    assert refused(made, "203.0.113.1") == ("rate", True)
    clock.now += 1
    made.accept(ALICE, 1)


def test_the_table_of_rates_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "BUCKETS_LIMIT", 10)
    made = admitting(rate_per_address=0.25)
    for host in range(100):
        made.accept(f"192.0.2.{host}", 1).release()
        made.accept(BOB, 1) if host == 0 else refused(made, BOB)
    assert len(made._buckets) == 10
    assert made.addresses == 1


def test_an_address_has_its_rooms_and_no_more() -> None:
    made = admitting(rooms_per_address=2)
    connections = [made.accept(ALICE, port) for port in range(4)]
    for connection, room in zip(connections, ("one", "one", "two"), strict=False):
        connection.enter(room)
    with pytest.raises(Refused) as caught:
        connections[3].enter("three")
    assert caught.value.reason == "address_rooms"
    made.accept(BOB, 1).enter("three")
    connections[0].release()
    with pytest.raises(Refused):
        connections[3].enter("three")
    connections[1].release()
    connections[3].enter("three")


def test_a_proxys_client_is_counted_when_it_is_named() -> None:
    made = admitting(connections_per_address=1)
    by_header, by_protocol, third = (made.accept(PROXY, port) for port in (1, 2, 3))
    assert by_header.proxied
    by_header.read_forwarded_for(f"203.0.113.9, {ALICE}")
    by_protocol.name_client(BOB, 4711)
    assert (str(by_header), str(by_protocol)) == (ALICE, f"{BOB}:4711")
    with pytest.raises(Refused):
        third.read_forwarded_for(ALICE)
    third.release()
    assert (made.open, made.addresses) == (2, 2)
    by_header.release()
    by_protocol.release()
    assert (made.open, made.addresses) == (0, 0)


def test_a_proxy_behind_a_proxy_names_the_client_in_its_turn() -> None:
    made = admitting(connections_per_address=1)
    origin = made.accept(PROXY, 1)
    origin.name_client("10.0.0.2", 5)
    origin.read_forwarded_for(ALICE)
    assert str(origin) == ALICE


def test_a_proxy_that_names_nobody_is_counted_itself() -> None:
    made = admitting(connections_per_address=1)
    made.accept(PROXY, 1).read_forwarded_for("")
    with pytest.raises(Refused):
        made.accept(PROXY, 2).read_forwarded_for("nonsense")


def test_a_client_that_is_no_proxy_cannot_name_another() -> None:
    made = admitting(connections_per_address=1)
    origin = made.accept(ALICE, 1)
    origin.read_forwarded_for(BOB)
    assert str(origin) == f"{ALICE}:1"
    made.accept(BOB, 1)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert str(admitting().accept("2001:db8::1", 80)) == "[2001:db8::1]:80"
