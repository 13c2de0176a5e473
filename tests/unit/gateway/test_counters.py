"""What a gateway counts by itself."""

from gateway.counters import SAMPLES, Counts


def test_few_frames_are_all_timed_and_of_many_about_as_many() -> None:
    counts = Counts()
    for frames in (0, 10, SAMPLES - 1):
        counts.pace(frames)
        assert counts.stride == 1
    for frames in (SAMPLES * 2, 100_000):
        counts.pace(frames)
        assert SAMPLES / 2 <= frames / counts.stride <= SAMPLES


def test_refusals_are_counted_by_what_became_of_them_and_code() -> None:
    counts = Counts()
    counts.refuse("dropped", 429)
    counts.refuse("dropped", 400)
    counts.refuse("answered", 429)
    assert counts.refused_total("dropped") == 2
    assert counts.refused == {("dropped", 429): 1, ("dropped", 400): 1, ("answered", 429): 1}
