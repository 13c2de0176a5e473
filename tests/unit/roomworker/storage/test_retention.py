"""Sent messages are kept for longer while some may not have arrived."""

from roomworker.storage.retention import BEYOND_GRACE, LONGEST, UNREACHABLE_FOR, Retention

START = 1000.0
USUAL = 30.0


def retention_of_a_steady_link() -> Retention:
    return Retention(USUAL - BEYOND_GRACE, START - USUAL)


def seconds_kept(retention: Retention, now: float, *gateways: str) -> float:
    return retention.keep_ms(lambda: gateways, now) / 1000


def test_messages_are_usually_kept_for_the_grace_and_fifteen_seconds() -> None:
    def asked() -> list[str]:
        raise AssertionError

    assert retention_of_a_steady_link().keep_ms(asked, START) == USUAL * 1000


def test_messages_are_kept_longest_until_the_link_is_steady() -> None:
    retention = Retention(USUAL - BEYOND_GRACE, START)
    assert seconds_kept(retention, START + 29) == LONGEST
    assert seconds_kept(retention, START + 30) == USUAL
    for second in range(40, 100):
        retention.broker_disconnected(START + second)
    assert seconds_kept(retention, START + 99 + 29) == LONGEST
    assert seconds_kept(retention, START + 99 + 30) == USUAL


def test_messages_of_an_unreachable_gateways_rooms_are_kept_longest() -> None:
    retention = retention_of_a_steady_link()
    retention.gateway_unreachable("silent", START)
    assert seconds_kept(retention, START + 60, "other", "silent") == LONGEST
    assert seconds_kept(retention, START + 60, "other") == USUAL


def test_messages_are_kept_longest_until_a_gateway_is_back_for_a_while() -> None:
    retention = retention_of_a_steady_link()
    retention.gateway_unreachable("silent", START)
    retention.gateway_reached("silent", START + 60)
    retention.gateway_reached("other", START + 60)
    retention.expire(START + 89)
    assert seconds_kept(retention, START + 89, "silent") == LONGEST
    retention.expire(START + 90)
    assert seconds_kept(retention, START + 90, "silent") == USUAL


def test_a_gateway_that_never_comes_back_is_given_up() -> None:
    retention = retention_of_a_steady_link()
    retention.gateway_unreachable("dead", START)
    retention.expire(START + UNREACHABLE_FOR)
    assert seconds_kept(retention, START + UNREACHABLE_FOR, "dead") == USUAL
