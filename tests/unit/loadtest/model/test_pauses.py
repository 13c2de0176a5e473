"""Pauses and resumes of a producer, as those who receive it are told."""

from loadtest.model.pauses import ConsumerPauses, PauseCounts, check_consumer


class EnabledConsumer:
    """A consumer that was enabled while nothing was under way."""

    def __init__(self, before: int = 0) -> None:
        self.kinds: list[str] = []
        self.turns = PauseCounts(before, before)
        self.pauses = self.enabled(before, paused=bool(before % 2))

    def enabled(self, answered: int, *, paused: bool) -> ConsumerPauses:
        return check_consumer("consumer 1", self.turns, answered, paused, self.wrong)

    def wrong(self, kind: str, _: str) -> None:
        self.kinds.append(kind)

    def turn(self, times: int = 1) -> None:
        self.turns.asked += times
        self.turns.answered += times

    def leave(self) -> list[str]:
        self.pauses.stop(self.turns.answered, self.turns.asked, self.wrong)
        return self.kinds


def test_consumer_notified_of_every_pause_and_resume_is_no_failure() -> None:
    for before in (0, 1, 7):
        consumer = EnabledConsumer(before)
        for n in range(before + 1, before + 5):
            consumer.turn()
            consumer.pauses.observe(bool(n % 2), consumer.wrong)
        assert consumer.leave() == []


def test_two_missing_turns_are_lost() -> None:
    consumer = EnabledConsumer()
    consumer.turn(3)
    consumer.pauses.observe(True, consumer.wrong)
    assert consumer.leave() == ["lost"]


def test_missing_last_turn_is_lost() -> None:
    consumer = EnabledConsumer()
    consumer.turn(2)
    consumer.pauses.observe(True, consumer.wrong)
    assert consumer.leave() == ["lost"]


def test_same_turn_twice_is_a_mismatch() -> None:
    consumer = EnabledConsumer()
    consumer.turn()
    consumer.pauses.observe(True, consumer.wrong)
    consumer.pauses.observe(True, consumer.wrong)
    assert "mismatch" in consumer.kinds


def test_more_turns_than_requested_are_duplicated() -> None:
    consumer = EnabledConsumer()
    consumer.turn()
    consumer.pauses.observe(True, consumer.wrong)
    consumer.pauses.observe(False, consumer.wrong)
    assert consumer.kinds == ["duplicated"]


def test_consumer_enabled_with_the_wrong_state_is_a_mismatch() -> None:
    consumer = EnabledConsumer(2)
    consumer.enabled(2, paused=True)
    assert consumer.kinds == ["mismatch"]


def test_turn_under_way_during_enabling_may_come_or_not() -> None:
    for seen in (0, 1, 2):
        consumer = EnabledConsumer()
        consumer.turns = PauseCounts(asked=2, answered=0)
        consumer.pauses = consumer.enabled(0, paused=bool((2 - seen) % 2))
        consumer.turns.answered = 2
        for n in range(3 - seen, 3):
            consumer.pauses.observe(bool(n % 2), consumer.wrong)
        assert consumer.leave() == [], seen


def test_leaving_peer_may_miss_what_was_under_way() -> None:
    consumer = EnabledConsumer()
    consumer.turns.asked = 1
    assert consumer.leave() == []
