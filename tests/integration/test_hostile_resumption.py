"""A client resumes a session from its beginning again and again, while its stream is long."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import psutil
import pytest

from devtools.cluster import Cluster
from shared.errors import REPLAY_TOO_LARGE
from tests.support.peer import Peer
from tests.support.recorded_close import RecordedClose, recorded_close
from tests.support.resumable_peer import ResumablePeer
from tests.support.waiting import PATIENCE, until

pytestmark = [pytest.mark.servers, pytest.mark.sample(1)]

STREAM_BYTES = 40 * 1024 * 1024
MESSAGE_BYTES = 60 * 1024
RESUMPTIONS = 15
MEMORY_BYTES = 30 * 1024 * 1024
"""What a room worker may need more while all of it is asked for: a stream read as a whole takes more."""


@pytest.fixture
async def cluster(redis_url: str, amqp_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    options = ["--grace-seconds", "120"]
    cluster = Cluster(
        redis_url,
        amqp_url,
        tmp_path,
        partitions=4,
        gateway_options=["--message-rate", "0", *options],
        worker_options=options,
    )
    async with cluster.running_async(gateways=1, workers=1):
        yield cluster


async def test_repeated_resumption_of_a_long_stream_bounds_memory(cluster: Cluster) -> None:
    gateway, worker = cluster.roles["gateway1"], cluster.roles["worker1"]
    listener = await ResumablePeer.at([gateway.url], "salon", "listener")
    await listener.join()
    talker = await Peer.connect(gateway.url, "salon", "talker")
    await talker.join()
    data = b64encode(Random(1).randbytes(MESSAGE_BYTES * 3 // 4)).decode()
    for _ in range(STREAM_BYTES // MESSAGE_BYTES // 10):
        asked = [talker.client.request({"to": "listener", "data": data}, "message") for _ in range(10)]
        for id_ in asked:
            await talker.answer(id_)
    await until(lambda: cluster.redis.memory_usage("room:{salon}:out") > STREAM_BYTES // 2, in_thread=True)

    process = psutil.Process(worker.process.pid)
    before = process.memory_info().rss
    ledger = listener.protoo.ledger
    await listener.protoo.abort()
    attempts: list[RecordedClose] = []
    for attempt in range(1, RESUMPTIONS + 1):
        token = ledger.resume()["resume"]
        query = f"roomId=salon&peerName=listener&resumable=1&resume={token}&ack=0&attempt={attempt + 100}"
        attempts.append(await recorded_close(gateway.url, query))
    peaks = []
    async with asyncio.timeout(PATIENCE):
        while not attempts[-1].code.done():
            peaks.append(process.memory_info().rss)
            await asyncio.sleep(0.02)

    assert attempts[-1].code.result() == REPLAY_TOO_LARGE.code
    assert max(peaks, default=0) - before < MEMORY_BYTES
    assert worker.alive
    assert (await talker.request("queryRoom"))["rtpCapabilities"]
