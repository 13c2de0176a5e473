"""The counters of a gateway."""

from gateway.counters import SAMPLES, Counters


def test_few_frames_are_all_timed_and_many_are_sampled() -> None:
    counters = Counters()
    for frames in (0, 10, SAMPLES - 1):
        counters.adapt_sampling(frames)
        assert counters.sample_every == 1
    for frames in (SAMPLES * 2, 100_000):
        counters.adapt_sampling(frames)
        assert SAMPLES / 2 <= frames / counters.sample_every <= SAMPLES


def test_rejected_frames_are_counted_by_outcome_and_code() -> None:
    counters = Counters()
    counters.count_rejected_frame("dropped", 429)
    counters.count_rejected_frame("dropped", 400)
    counters.count_rejected_frame("answered", 429)
    assert counters.rejected_frames_total("dropped") == 2
    assert counters.rejected_frames == {("dropped", 429): 1, ("dropped", 400): 1, ("answered", 429): 1}
