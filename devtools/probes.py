"""Makes blocking calls to Redis and RabbitMQ, for tests and benchmarks beside the code under test."""

import logging
from typing import Any

import pika
import redis as redis_client

# pika logs seven lines for every attempt at a server that is still starting.
logging.getLogger("pika").setLevel(logging.CRITICAL)


def redis_answers(url: str) -> bool:
    try:
        with redis_client.Redis.from_url(url, socket_timeout=2) as client:
            return bool(client.ping())
    except (redis_client.RedisError, OSError):
        return False


def rabbitmq_answers(url: str) -> bool:
    try:
        amqp_connection(url).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def empty_redis(url: str) -> None:
    with redis_client.Redis.from_url(url, socket_timeout=5) as client:
        client.flushdb()


def empty_rabbitmq(url: str, partitions: int = 64) -> None:
    """Removes the partitions' queues of an earlier test, whatever their type was."""
    connection = amqp_connection(url)
    try:
        channel = connection.channel()
        for partition in range(partitions):
            channel.queue_delete(f"rooms.{partition}")
    finally:
        connection.close()


def amqp_connection(url: str) -> Any:
    """Opens a blocking connection."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
    return pika.BlockingConnection(parameters)
