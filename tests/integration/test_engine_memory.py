"""The memory of an engine does not grow with the calls it has carried. `python -m tests.soak` goes on for an hour."""

import pytest

from medianode.engines.mediasoup.engine import MediasoupEngine
from tests.integration.test_engine import settings
from tests.soak.calls import PROTOCOLS, Sample, growth, soak

pytestmark = pytest.mark.engine

SAMPLES = 12
CALLS_PER_SAMPLE = 15
GROWTH_LIMIT = 3000
"""Bytes per call. Buffers of the allocator grow a little at first; mediasoup-worker 3.12.16 lost 9,000 per call."""


@pytest.mark.timeout(600)
async def test_calls_over_udp_and_tcp_leave_no_memory_behind() -> None:
    engine = MediasoupEngine(settings())
    deaths: list[str] = []
    await engine.start(lambda _: None, deaths.append)
    samples: list[Sample] = []
    try:
        async for sample in soak(engine, PROTOCOLS, calls_per_sample=CALLS_PER_SAMPLE):
            samples.append(sample)
            if len(samples) == SAMPLES:
                break
    finally:
        await engine.close()
    print(*samples, sep="\n")
    assert deaths == []
    assert growth(samples) < GROWTH_LIMIT


def test_growth_is_that_of_the_last_third() -> None:
    flat = [Sample(calls, 1000, 0.0) for calls in range(0, 90, 10)]
    assert growth(flat) == 0
    settled = [Sample(calls, min(1000 + calls, 1030), 0.0) for calls in range(0, 90, 10)]
    assert growth(settled) == 0
    leaking = [Sample(calls, 1000 + 9 * calls, 0.0) for calls in range(0, 90, 10)]
    assert growth(leaking) == 9 * 1024
