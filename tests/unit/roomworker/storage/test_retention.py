"""Sent messages are kept for longer while some may not have arrived."""

from roomworker.storage.retention import UNREACHABLE_FOR, Retention

START = 1000.0
USUAL = 30.0


def quiet_for_long() -> Retention:
    """Of a worker whose link has held for long."""
    return Retention(USUAL, START - USUAL)


def keeps(retention: Retention, now: float, *gateways: str) -> bool:
    return retention.keeps_all(lambda: gateways, now)


def test_usually_messages_are_trimmed_and_nobody_asks_for_gateways() -> None:
    def asked() -> list[str]:
        raise AssertionError

    assert not quiet_for_long().keeps_all(asked, START)


def test_nothing_is_trimmed_until_the_link_to_the_broker_has_held_for_the_usual_time() -> None:
    retention = Retention(USUAL, START)
    assert keeps(retention, START + 29)
    assert not keeps(retention, START + 30)
    for second in range(40, 100):
        retention.link_down(START + second)
    assert keeps(retention, START + 99 + 29)
    assert not keeps(retention, START + 99 + 30)


def test_nothing_of_its_rooms_is_trimmed_while_a_gateway_is_not_reached_and_for_the_usual_time_after() -> None:
    retention = quiet_for_long()
    retention.unreached("deaf", START)
    assert keeps(retention, START + 60, "other", "deaf")
    assert not keeps(retention, START + 60, "other")
    retention.reached("deaf", START + 60)
    retention.reached("other", START + 60)
    retention.forget(START + 89)
    assert keeps(retention, START + 89, "deaf")
    retention.forget(START + 90)
    assert not keeps(retention, START + 90, "deaf")


def test_a_gateway_that_never_comes_back_is_not_waited_for_for_ever() -> None:
    retention = quiet_for_long()
    retention.unreached("dead", START)
    retention.forget(START + UNREACHABLE_FOR)
    assert not keeps(retention, START + UNREACHABLE_FOR, "dead")
