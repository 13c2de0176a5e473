"""Rooms in Redis.

    room:{R}        hash    v, token, and a record per object (`record`); R percent-encoded
    room:{R}:out    stream  an entry per commit with its messages and orders, kept for `KEEP_OUT_MS`
    room:{R}:gone   hash    closed session → its last numbers, and the token of the last deletion; kept `KEEP_GONE_S`
    plenary:partition:<p>   set of `R#incarnation`: the rooms of a partition (DELIVERY C5)

Safety is `storage/commit.lua`'s compare-and-set; whoever's version is not the stored one changes nothing.
"""

import asyncio
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from roomworker.core.model import ClosedSession, StoredAnswer
from roomworker.storage.stream_entry import Entry, SentMessage, decode_entry, encode_entry
from shared.cluster.redis_keys import (
    DEAD_LETTERS_KEY,
    closed_sessions_key,
    index_key,
    index_member,
    indexed_room,
    room_key,
    stream_key,
    suspects_key,
)
from shared.protocol import media
from shared.telemetry import log

KEEP_OUT_MS: Final = 30_000
KEEP_OUT_MOST_MS: Final = 600_000
KEEP_GONE_S: Final = 600
KEEP_SUSPECTS_S: Final = 3600
DEAD_KEPT: Final = 1000
RETRY_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)

_CALL: Final = "call|"

Status: TypeAlias = Literal["OK", "APPLIED", "STALE"]

_SCRIPT: Final = files("roomworker.storage").joinpath("commit.lua").read_bytes()
_SHA: Final = sha1(_SCRIPT, usedforsecurity=False).hexdigest()

logger = log.get("store")


@dataclass(frozen=True, slots=True)
class Commit:
    """`expected` and `version` are `<incarnation>:<n>`; empty: no such room. `first`: not in the index yet.

    `deletion_token`, as loaded, tells which of several absences an empty `expected` means. With `keep_all` sent
    messages are kept for as long as can be (`roomworker.storage.retention`).
    """

    room: str
    partition: int
    expected: str
    version: str
    token: str
    fields: Mapping[str, bytes | None]
    entry: Entry | None
    closed_sessions: Mapping[str, ClosedSession | None]
    answered_calls: Mapping[str, StoredAnswer | None] = field(default_factory=dict)
    first: bool = False
    deletion_token: str = ""
    keep_all: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A room as read: `version` empty if there is none (its gone sessions may still be known).

    `deletion_token` is then the token of the commit that deleted it, as long as that is known.
    """

    version: str
    fields: dict[str, bytes]
    closed_sessions: dict[str, ClosedSession]
    answered_calls: dict[str, StoredAnswer] = field(default_factory=dict)
    deletion_token: str = ""


class Store:
    """`commit` and `load` take many rooms in one round trip and try again until Redis answers."""

    def __init__(self, redis: Redis, keep_out_ms: int = KEEP_OUT_MS) -> None:
        self._redis = redis
        self._keep_out_ms = keep_out_ms
        self._script_loaded = False
        self.round_trips = 0
        self.failures = 0
        """Round trips that Redis did not answer as it should; each was repeated."""

    async def commit(self, commits: Sequence[Commit]) -> list[Status]:
        """The status of each, in order. A commit whose answer was lost is recognised by its token."""
        statuses: dict[int, Status] = {}
        todo = list(range(len(commits)))
        while todo:
            if not self._script_loaded:
                await self._run([("SCRIPT", "LOAD", _SCRIPT)])
                self._script_loaded = True
            commands: list[tuple[Any, ...]] = []
            script_at: list[int] = []
            for index in todo:
                before, script = _commands(commits[index], self._keep_out_ms)
                script_at.append(len(commands) + len(before))
                commands += [*before, script]
            results = await self._run(commands)
            again = []
            for index, position in zip(todo, script_at, strict=True):
                result = results[position]
                if isinstance(result, NoScriptError):  # not applied: Redis forgot the script
                    self._script_loaded = False
                    again.append(index)
                else:
                    statuses[index] = cast("Status", result.decode())
            todo = again
        # only now: a room that somebody else has changed goes on living, and must be found
        dead = [c for i, c in enumerate(commits) if not c.version and statuses[i] != "STALE"]
        if dead:
            await self._run([("SREM", index_key(commit.partition), _member(commit)) for commit in dead])
        return [statuses[index] for index in range(len(commits))]

    async def load(self, rooms: Sequence[str]) -> list[Stored]:
        commands: list[tuple[Any, ...]] = []
        for room in rooms:
            commands += [("HGETALL", room_key(room)), ("HGETALL", closed_sessions_key(room))]
        results = await self._run(commands)
        return [_stored(results[at], results[at + 1]) for at in range(0, len(results), 2)]

    async def replay(self, room: str, session: str, after: int) -> list[tuple[SentMessage, int]]:
        """The session's messages with output numbers above `after` that are still kept, in order."""
        (entries,) = await self._run([("XRANGE", stream_key(room), "-", "+")])
        found: list[tuple[SentMessage, int]] = []
        for entry in _decoded(room, entries):
            for message in entry.messages:
                found += [(message, out) for to, out in message.to if to == session and out > after]
        return found

    async def orders(self, rooms: Sequence[str]) -> list[tuple[str, media.AnyOrder]]:
        """The orders that the rooms' commits carried and that are still kept, a room's in order; with their nodes."""
        replies = await self._run([("XRANGE", stream_key(room), "-", "+") for room in rooms])
        return [
            order
            for room, entries in zip(rooms, replies, strict=True)
            for entry in _decoded(room, entries)
            for order in entry.orders
        ]

    async def suspects(self, partition: int) -> dict[str, int]:
        """What was being run again, and how often that was begun (`roomworker.partitions.poison`)."""
        (marked,) = await self._run([("HGETALL", suspects_key(partition))])
        return {name.decode(): int(times) for name, times in _pairs(marked)}

    async def suspect(self, partition: int, name: str) -> int:
        """Marks it once more; how often it has been."""
        key = suspects_key(partition)
        times, _ = await self._run([("HINCRBY", key, name, 1), ("EXPIRE", key, KEEP_SUSPECTS_S)])
        return int(times)

    async def clear_suspects(self, partition: int, names: Sequence[str]) -> None:
        await self._run([("HDEL", suspects_key(partition), *names)])

    async def set_aside(self, partition: int, item: msgspec.Struct, reason: str) -> None:
        """Keeps a message that nobody can handle, for a person to look at."""
        fields = ("partition", partition, "reason", reason, "item", msgspec.json.encode(item))
        await self._run([("XADD", DEAD_LETTERS_KEY, "MAXLEN", "~", DEAD_KEPT, "*", *fields)])

    async def dead_letters(self) -> int:
        """How many messages were set aside and are still kept. Raises `RedisError`."""
        return int(await asyncio.shield(asyncio.ensure_future(self._redis.xlen(DEAD_LETTERS_KEY))))

    async def indexed(self, partition: int) -> list[str]:
        """The names of the rooms of a partition."""
        (members,) = await self._run([("SMEMBERS", index_key(partition))])
        # twice the same name: an incarnation whose worker died between index and first commit, or deletion and index
        return list({indexed_room(member) for member in members})

    async def _run(self, commands: Iterable[tuple[Any, ...]]) -> list[Any]:
        """One pipelined round trip, repeated until Redis answers. A command's own error is its result."""
        attempt = 0
        while True:
            pipeline = self._redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            self.round_trips += 1
            try:
                # whole, whoever is cancelled: redis-py may lose that, or a reply
                results: list[Any] = await asyncio.shield(
                    asyncio.ensure_future(pipeline.execute(raise_on_error=False))
                )
                _raise_passing(results)
            except (RedisError, OSError, TimeoutError) as failure:
                self.failures += 1
                if attempt == 0:
                    logger.warning("redis does not answer; trying until it does", error=str(failure))
                await asyncio.sleep(RETRY_PAUSES[min(attempt, len(RETRY_PAUSES) - 1)])
                attempt += 1
                continue
            if attempt:
                logger.info("redis answers again", attempts=attempt)
            return results


def _raise_passing(results: Iterable[Any]) -> None:
    """Raises what Redis answers while it cannot: loading, out of memory, read-only, disk trouble (MISCONF)."""
    for result in results:
        if isinstance(result, ResponseError) and not isinstance(result, NoScriptError):
            raise result


def _member(commit: Commit) -> str:
    return index_member(commit.room, (commit.version or commit.expected).partition(":")[0])


def _commands(commit: Commit, keep_out_ms: int) -> tuple[list[tuple[Any, ...]], tuple[Any, ...]]:
    """What precedes the script, and the script."""
    keys = room_key(commit.room), stream_key(commit.room), closed_sessions_key(commit.room)
    before = [("SADD", index_key(commit.partition), _member(commit))] if commit.first else []
    sets: list[Any] = []
    deletes: list[Any] = []
    for name, value in commit.fields.items():
        if value is None:
            deletes.append(name)
        else:
            sets += (name, value)
    closed: list[Any] = []
    forgotten: list[Any] = []
    for session, gone in commit.closed_sessions.items():
        if gone is None:
            forgotten.append(session)
        else:
            closed += (session, f"{gone.n_in}:{gone.n_out}")
    for call, answer in commit.answered_calls.items():
        if answer is None:
            forgotten.append(_CALL + call)
        else:
            closed += (_CALL + call, b"%d:%s" % (answer.code, answer.body))
    sections = [part for section in (sets, deletes, closed, forgotten) for part in (len(section), *section)]
    sent = encode_entry(commit.entry) if commit.entry else b""
    head = ("EVALSHA", _SHA, 3, *keys, commit.expected, commit.version, commit.token)
    keep = KEEP_OUT_MOST_MS if commit.keep_all else keep_out_ms
    return before, (*head, keep, KEEP_GONE_S, sent, commit.deletion_token, *sections)


def _stored(fields: Any, gone: Any) -> Stored:
    named = {name.decode(): value for name, value in _pairs(fields)}
    version = named.pop("v", b"").decode()
    named.pop("token", None)
    closed = {name.decode(): value for name, value in _pairs(gone)}
    deletion_token = closed.pop("|deleted", b"").decode()
    last: dict[str, ClosedSession] = {}
    answered: dict[str, StoredAnswer] = {}
    for name, value in closed.items():
        first, _, rest = value.partition(b":")
        if name.startswith(_CALL):
            answered[name.removeprefix(_CALL)] = StoredAnswer(int(first), rest)
        else:
            last[name] = ClosedSession(int(first), int(rest))
    return Stored(version, named, last, answered, "" if version else deletion_token)


def _pairs(reply: Any) -> Iterable[tuple[bytes, bytes]]:
    if isinstance(reply, dict):
        return cast("Iterable[tuple[bytes, bytes]]", reply.items())
    return zip(reply[::2], reply[1::2], strict=True)


def _field(fields: Any, name: bytes) -> bytes:
    return dict(_pairs(fields))[name]


def _decoded(room: str, entries: Iterable[tuple[Any, Any]]) -> Iterator[Entry]:
    """Those that can be read: one that cannot must not be the end of every worker that tries."""
    for id_, fields in entries:
        try:
            yield decode_entry(_field(fields, b"m"))
        except (msgspec.MsgspecError, zlib.error) as broken:
            logger.error("sent messages cannot be read", room=room, entry=id_.decode(), error=str(broken))
