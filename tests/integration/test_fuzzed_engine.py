"""Hostile packets do not end an engine. `python -m tests.fuzz` sends more of them, also to one with a sanitizer."""

import pytest

from medianode.engines.mediasoup.engine import MediasoupEngine
from tests.fuzz.media_port import PACKETS_PER_CALL, fuzz
from tests.integration.test_engine import settings
from tests.support.sampling import examples

pytestmark = pytest.mark.engine

CODECS_AND_PROTOCOLS = 8
"""Calls after which each video codec was fuzzed over UDP and over TCP."""


@pytest.mark.timeout(1200)
async def test_engine_survives_hostile_packets(pytestconfig: pytest.Config) -> None:
    engine = MediasoupEngine(settings())
    deaths: list[str] = []
    await engine.start(lambda _: None, deaths.append)
    try:
        counts = await fuzz(engine, pytestconfig.option.seed, examples(CODECS_AND_PROTOCOLS * PACKETS_PER_CALL))
    finally:
        await engine.close()
    print(counts)
    assert deaths == []
    assert counts["received RTP"] > 100, "the fuzzed call is none"
    assert min(counts[kind] for kind in ("SRTP", "SRTCP", "changed SRTP", "changed SRTCP", "other")) > 1000
