"""Measures the least latency of a request: two AMQP hops and one Redis write, and nothing else.

    python -m benchmarks.compare.floor AMQP_URL REDIS_URL        (the responder; prints "ready")

A request is published to one queue; the responder consumes it, writes to Redis and publishes to another queue, which
the requester consumes. Messages are transient, without acknowledgements and confirms, and sent by aiormq alone.
"""

import asyncio
import subprocess
import sys
import time
from typing import Any, Final

import aiormq
import psutil
import uvloop
from redis.asyncio import Redis

from benchmarks.compare.clients import ANSWER_SECONDS, TEXT, CheckFailed
from benchmarks.compare.load import WARM_SECONDS, Sample, no_collection
from benchmarks.compare.processes import OTHERS, cpu_seconds, listening
from benchmarks.compare.systems import ROOT, Servers, Unavailable
from loadtest.model.histogram import percentile

REQUESTS: Final = "floor.requests"
ANSWERS: Final = "floor.answers"
BODY: Final = TEXT.encode()
PARALLEL: Final = 32
"""Requests that the responder handles at once, and the most connections to Redis that it opens."""
WORK_SECONDS: Final = 20.0
"""Seconds for handling one request, after which the responder gives up."""
LOOK_AGAIN: Final = 0.5


async def _channel(amqp_url: str) -> Any:
    connection = await aiormq.connect(amqp_url)
    channel = await connection.channel(publisher_confirms=False)
    for queue in (REQUESTS, ANSWERS):
        await channel.queue_declare(queue, auto_delete=False)
    return channel


async def serve(amqp_url: str, redis_url: str) -> None:
    """Runs the responder. Raises the failure of the first request that it could not answer."""
    redis = Redis.from_url(redis_url, max_connections=PARALLEL)
    channel = await _channel(amqp_url)
    places = asyncio.Semaphore(PARALLEL)
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(message: Any) -> None:
        try:
            async with places, asyncio.timeout(WORK_SECONDS):
                await redis.hset("floor", "message", message.body)
                await channel.basic_publish(message.body, routing_key=ANSWERS)
        except Exception as failure:  # noqa: BLE001 - ends the responder
            if not failed.done():
                failed.set_exception(failure)

    await channel.basic_consume(REQUESTS, answer, no_ack=True)
    print("ready", flush=True)  # noqa: T201
    await failed


class Floor:
    """Runs the responder in a process of its own, and requests from here. Use it as an async context manager."""

    def __init__(self, servers: Servers, fsync: str) -> None:
        self.name = "floor" if fsync == "always" else f"floor, {fsync}"
        self._rabbitmq, self._redis = servers.rabbitmq, servers.redis[fsync]
        self._sent = 0
        self._waiting: dict[int, float] = {}
        self._latencies: list[float] = []
        self._all: asyncio.Event = asyncio.Event()

    async def __aenter__(self) -> "Floor":
        command = [sys.executable, "-m", "benchmarks.compare.floor", self._rabbitmq.url, self._redis.url]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603, ASYNC220
        assert self._process.stdout is not None
        if await asyncio.to_thread(self._process.stdout.readline) != "ready\n":
            raise Unavailable("the floor's responder did not start")
        self._channel = await _channel(self._rabbitmq.url)
        self._consumer = (await self._channel.basic_consume(ANSWERS, self._answered, no_ack=True)).consumer_tag
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        await self._channel.basic_cancel(self._consumer)
        for queue in (REQUESTS, ANSWERS):
            await self._channel.queue_delete(queue)
        await self._channel.connection.close()
        assert self._process.stdout is not None
        self._process.stdout.close()

    async def _answered(self, message: Any) -> None:
        began = self._waiting.pop(int(message.body[len(BODY) :]), None)
        if began is None:
            raise CheckFailed("an answer came twice")
        self._latencies.append(time.perf_counter() - began)
        if not self._waiting:
            self._all.set()

    async def _ask(self) -> None:
        self._sent += 1
        self._waiting[self._sent] = time.perf_counter()
        self._all.clear()
        await self._channel.basic_publish(BODY + b"%012d" % self._sent, routing_key=REQUESTS)

    async def pace(self, seconds: float, rate: int, warm: float = WARM_SECONDS) -> Sample:
        """Sends `rate` requests a second; then one after the other, as fast as they are answered."""
        processes = {
            "responder": psutil.Process(self._process.pid),
            "RabbitMQ": listening(self._rabbitmq.port),
            "Redis": listening(self._redis.port),
        }
        with no_collection():
            await self._send(warm, rate)
            self._latencies.clear()
            used = cpu_seconds(processes)
            await self._send(seconds, rate)
            spent = cpu_seconds(processes) - used
            latencies = self._latencies[:]
            self._latencies.clear()
            until = time.perf_counter() + seconds / 2
            while time.perf_counter() < until:
                await self._ask()
                await self._until_answered()
        return {
            "requests": len(latencies),
            "requests_per_second": round(len(latencies) / seconds, 1),
            "p50_ms": round(percentile(latencies, 0.5) * 1e3, 3),
            "p99_ms": round(percentile(latencies, 0.99) * 1e3, 3),
            "one_by_one_p50_ms": round(percentile(self._latencies, 0.5) * 1e3, 3),
            "cpu_us_per_request": {
                name: round(s / len(latencies) * 1e6, 1) for name, s in spent.items() if name != OTHERS
            },
            "cores": {name: round(s / seconds, 2) for name, s in spent.items()},
        }

    async def _send(self, seconds: float, rate: int) -> None:
        began = time.perf_counter()
        for number in range(int(rate * seconds)):
            if (wait := began + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            await self._ask()
        await self._until_answered()

    async def _until_answered(self) -> None:
        """Waits until all requests are answered. Raises `CheckFailed` if the responder ends or stops answering."""
        deadline = time.perf_counter() + ANSWER_SECONDS
        while self._waiting:
            try:
                await asyncio.wait_for(self._all.wait(), LOOK_AGAIN)
            except TimeoutError:
                if (code := self._process.poll()) is not None:
                    raise CheckFailed(
                        f"the floor's responder ended with exit code {code}; its error is above"
                    ) from None
                if time.perf_counter() > deadline:
                    unanswered = f"{len(self._waiting)} requests unanswered for {ANSWER_SECONDS:g} s"
                    raise CheckFailed(f"the floor's responder left {unanswered}") from None


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
