"""Stores rooms in Redis, in the keys of `shared.cluster.redis_keys`.

`storage/commit.lua` compares and sets: a worker whose version is not the stored one changes nothing.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from roomworker.core.model import ClosedSession, StoredAnswer
from roomworker.counters import CommitStatus
from roomworker.storage.pages import decode_page, page_command, pairs
from roomworker.storage.port import (
    DEAD_LETTERS_KEPT,
    KEEP_ATTEMPTS_S,
    KEEP_CLOSED_S,
    UNCOUNTED,
    Commit,
    Page,
    PageWanted,
    Stored,
)
from roomworker.storage.stream_ages import StreamAges
from roomworker.storage.stream_entry import encode_entry
from shared.aio.backoff import Backoff
from shared.cluster.availability import FAILURES, Availability
from shared.cluster.redis_keys import (
    CLOSED_SESSIONS_PATTERN,
    DEAD_LETTERS_KEY,
    attempts_key,
    closed_sessions_key,
    index_key,
    indexed_rooms,
    room_key,
    room_key_of,
    stream_key,
)
from shared.cluster.redis_write import ALLOW_OOM, unrefused
from shared.protocol import media
from shared.telemetry import log

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two attempts of a round trip."""
ROUND_TRIPS_AT_ONCE: Final = 8
"""Round trips under way besides those of the two loops that load and commit: each takes a connection of its own."""

FIELDS_COUNTED: Final = 500_000
"""Fields of a room whose bytes are counted: Redis does nothing else meanwhile, for a few hundredths of a second."""

_CALL: Final = "call|"
_DELETED: Final = "|deleted"
_TRACE: Final = "call||trace"
_IS_TRACE: Final = b"0:"
"""The name and the beginning of a trace. Versions without traces take it for an answered call of the server API; the
code of such an answer is never 0."""

_SIZE: Final = files("roomworker.storage").joinpath("size.lua").read_bytes()
_SCRIPT: Final = ALLOW_OOM.encode() + files("roomworker.storage").joinpath("commit.lua").read_bytes()
_SHA: Final = sha1(_SCRIPT, usedforsecurity=False).hexdigest()

_TRIM: Final = ALLOW_OOM.encode() + files("roomworker.storage").joinpath("trim.lua").read_bytes()
PAGE_BYTES: Final = 64 * 1024
"""Bytes of one stream that are read at a time for its orders."""
STREAMS_AT_ONCE: Final = 16
"""Streams of which a page is read in one round trip."""
ROOMS_PER_TRIP: Final = 100
"""Rooms that are trimmed or measured in one round trip."""
_PAST_KEYS_AT_ONCE: Final = 500
"""Keys that one step of `shorten_past` asks Redis to look at."""

T = TypeVar("T")
Command: TypeAlias = tuple[Any, ...]

logger = log.get("store")


class RedisStore:
    """Implements `roomworker.storage.port.Store`.

    `availability` is shared with the other users of this Redis; `clock` is monotonic, seconds.
    """

    def __init__(
        self,
        redis: Redis,
        availability: Availability | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._stream_ages = StreamAges()
        self._availability = availability or Availability()
        self._script_loaded = False
        self._others = asyncio.Semaphore(ROUND_TRIPS_AT_ONCE)
        self.round_trips = 0
        self.failures = 0

    # --- rooms ------------------------------------------------------------------------------------------------

    async def commit(self, commits: Sequence[Commit]) -> list[CommitStatus]:
        statuses: dict[int, CommitStatus] = {}
        todo = list(range(len(commits)))
        while todo:
            if not self._script_loaded:
                await self._run([("SCRIPT", "LOAD", _SCRIPT)])
                self._script_loaded = True
            results = await self._run_scripts([commits[index] for index in todo])
            again = []
            for index, result in zip(todo, results, strict=True):
                if isinstance(result, NoScriptError):  # not applied: Redis forgot the script
                    self._script_loaded = False
                    again.append(index)
                elif isinstance(result, ResponseError):
                    room = commits[index].room
                    logger.error("room.commit_refused", room=room, error=str(result))
                    statuses[index] = "FAILED"
                else:
                    statuses[index] = cast("CommitStatus", result.decode())
            todo = again
        self._note_ages(commits, statuses)
        # last, because a room that another worker has changed still exists, and must be found
        deleted = [c for i, c in enumerate(commits) if not c.version and statuses[i] in ("OK", "APPLIED")]
        if deleted:
            await self._run([("SREM", index_key(commit.partition), commit.index_member) for commit in deleted])
        return [statuses[index] for index in range(len(commits))]

    def _note_ages(self, commits: Sequence[Commit], statuses: Mapping[int, CommitStatus]) -> None:
        now = self._clock()
        for index, commit in enumerate(commits):
            if statuses[index] in ("OK", "APPLIED"):
                self._stream_ages.stored(commit, now)
            else:
                self._stream_ages.forget(commit.room)

    async def _run_scripts(self, commits: Sequence[Commit]) -> list[Any]:
        """Runs the script for each commit; returns its answers."""
        commands: list[Command] = []
        script_at: list[int] = []
        now = self._clock()
        for commit in commits:
            if commit.first:
                commands.append(unrefused("SADD", index_key(commit.partition), commit.index_member))
            script_at.append(len(commands))
            commands.append(_script(commit, self._stream_ages.limit(commit, now)))
        results = await self._run(commands)
        return [results[at] for at in script_at]

    async def state_sizes(self, rooms: Sequence[str]) -> list[int]:
        results = await self._run(
            [("EVAL", _SIZE, 2, room_key(room), closed_sessions_key(room), FIELDS_COUNTED) for room in rooms]
        )
        return [result if isinstance(result, int) and result >= 0 else UNCOUNTED for result in results]

    async def load(self, rooms: Sequence[str]) -> list[Stored]:
        commands: list[Command] = []
        for room in rooms:
            commands += [("HGETALL", room_key(room)), ("HGETALL", closed_sessions_key(room))]
        results = await self._run(commands)
        return [_stored(results[at], results[at + 1]) for at in range(0, len(results), 2)]

    async def pages(self, wanted: Sequence[PageWanted], size: int) -> list[Page]:
        distinct = list(dict.fromkeys(wanted))
        replies = await self._run_other([page_command(each, size) for each in distinct])
        pages = {each: decode_page(each.room, reply) for each, reply in zip(distinct, replies, strict=True)}
        return [pages[each] for each in wanted]

    async def orders(self, rooms: Sequence[str]) -> list[tuple[str, media.AnyOrder]]:
        orders: dict[str, list[tuple[str, media.AnyOrder]]] = {room: [] for room in rooms}
        unread = [PageWanted(room) for room in orders]
        while unread:
            some, unread = unread[:STREAMS_AT_ONCE], unread[STREAMS_AT_ONCE:]
            for each, page in zip(some, await self.pages(some, PAGE_BYTES), strict=True):
                orders[each.room] += [order for _, entry in page.entries for order in entry.orders]
                if page.last:
                    unread.append(PageWanted(each.room, page.last))
        return [order for room in rooms for order in orders[room]]

    async def indexed(self, partition: int) -> list[str]:
        (members,) = await self._run_other([("SMEMBERS", index_key(partition))])
        if isinstance(members, ResponseError):
            logger.error("partition.index_unreadable", partition=partition, error=str(members))
            return []
        return indexed_rooms(member.decode(errors="replace") for member in members)

    # --- saving memory ----------------------------------------------------------------------------------------

    async def trim(self, rooms: Sequence[str], keep_ms: int) -> int:
        now = self._clock()
        limits = {room: self._stream_ages.limit_now(room, keep_ms, now) for room in rooms}
        trims = [(room, *limit) for room, limit in limits.items() if limit is not None]
        removed = 0
        for some in _chunks(trims):
            scripts = [
                ("EVAL", _TRIM, 2, room_key(room), stream_key(room), version, kept) for room, version, kept in some
            ]
            counts = await self._run_other(scripts)
            removed += sum(count for count in counts if isinstance(count, int))  # else a key is of another type
        return removed

    async def footprints(self, rooms: Sequence[str]) -> list[int]:
        footprints: list[int] = []
        for some in _chunks(rooms):
            keys = [key(room) for room in some for key in (room_key, stream_key, closed_sessions_key)]
            used = await self._run_other([("MEMORY", "USAGE", key) for key in keys])
            each = [bytes_ if isinstance(bytes_, int) else 0 for bytes_ in used]  # else missing, or not to be told
            footprints += [sum(each[at : at + 3]) for at in range(0, len(each), 3)]
        return footprints

    async def shorten_past(self, keep_s: int) -> int:
        shortened, cursor = 0, b"0"
        while True:
            scan = ("SCAN", cursor, "MATCH", CLOSED_SESSIONS_PATTERN, "COUNT", _PAST_KEYS_AT_ONCE)
            ((cursor, keys),) = await self._run_other([scan])
            asked = [command for key in keys for command in (("EXISTS", room_key_of(key)), ("TTL", key))]
            told = await self._run_other(asked) if asked else []
            late = [
                key
                for key, exists, left in zip(keys, told[::2], told[1::2], strict=True)
                if not exists and left > keep_s
            ]
            if late:
                await self._run_other([("EXPIRE", key, keep_s) for key in late])
            shortened += len(late)
            if int(cursor) == 0:
                return shortened

    # --- messages with which workers died ---------------------------------------------------------------------

    async def attempts(self, partition: int) -> dict[str, int]:
        (marked,) = await self._run_other([("HGETALL", attempts_key(partition))])
        try:
            return {name.decode(): int(times) for name, times in pairs(marked)}
        except (ValueError, TypeError) as broken:
            logger.error("partition.attempts_unreadable", partition=partition, error=str(broken))
            return {}

    async def record_attempt(self, partition: int, name: str) -> int:
        key = attempts_key(partition)
        times, _ = await self._run_other([("HINCRBY", key, name, 1), ("EXPIRE", key, KEEP_ATTEMPTS_S)])
        if isinstance(times, ResponseError):
            logger.error("partition.attempts_unreadable", partition=partition, error=str(times))
            return 1
        return int(times)

    async def withdraw_attempts(self, partition: int, names: Sequence[str]) -> None:
        key = attempts_key(partition)
        less = (("HINCRBY", key, name, -1) for name in names)
        await self._run_other([*less, ("EXPIRE", key, KEEP_ATTEMPTS_S)])

    async def clear_attempts(self, partition: int, names: Sequence[str]) -> None:
        await self._run_other([("HDEL", attempts_key(partition), *names)])

    async def add_dead_letter(self, partition: int, item: msgspec.Struct, reason: str) -> None:
        fields = ("partition", partition, "reason", reason, "item", msgspec.json.encode(item))
        await self._run_other([("XADD", DEAD_LETTERS_KEY, "MAXLEN", "~", DEAD_LETTERS_KEPT, "*", *fields)])

    async def count_dead_letters(self) -> int:
        return int(await asyncio.shield(asyncio.ensure_future(self._redis.xlen(DEAD_LETTERS_KEY))))

    # --- round trips ------------------------------------------------------------------------------------------

    async def _run_other(self, commands: Sequence[Command]) -> list[Any]:
        """Makes a round trip, at most `ROUND_TRIPS_AT_ONCE` at a time: hundreds of rooms may need one at once."""
        async with self._others:
            return await self._run(commands)

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        """Makes one pipelined round trip, repeated until Redis answers.

        The result of a command that can never succeed, because its key is of another type, is its `ResponseError`.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            self.round_trips += 1
            try:
                results = await self._execute(commands)
                refused = [at for at, result in enumerate(results) if isinstance(result, OutOfMemoryError)]
                if refused:
                    again = await self._execute([unrefused(*commands[at]) for at in refused])
                    for at, result in zip(refused, again, strict=True):
                        results[at] = result
                _raise_passing(results)
            except (RedisError, *FAILURES) as failure:
                self.failures += 1
                self._availability.failed(failure)
                await backoff.wait()
                continue
            self._availability.answered()
            return results

    async def _execute(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        # shielded, because redis-py may lose a cancellation, or a reply after one
        results: list[Any] = await asyncio.shield(asyncio.ensure_future(pipeline.execute(raise_on_error=False)))
        return results


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[at : at + ROOMS_PER_TRIP] for at in range(0, len(items), ROOMS_PER_TRIP))


def _raise_passing(results: Iterable[Any]) -> None:
    """Raises what Redis answers while it cannot work: loading, out of memory, read-only, disk trouble (MISCONF)."""
    for result in results:
        if isinstance(result, ResponseError) and not isinstance(result, NoScriptError) and not _is_lasting(result):
            raise result


def _is_lasting(failure: ResponseError) -> bool:
    """Whether the command would fail for ever: its key or a value in it is of another type, or it is not allowed."""
    text = str(failure)
    return "WRONGTYPE" in text or "is not an integer" in text or "NOPERM" in text


def _script(commit: Commit, entries_kept: int | None) -> Command:
    """Returns the call of the script. The stream is trimmed to so many entries; None: it is not."""
    sets: list[Any] = []
    deletes: list[Any] = []
    for name, value in commit.fields.items():
        if value is None:
            deletes.append(name)
        else:
            sets += (name, value)
    closed: list[Any] = []
    forgotten: list[Any] = []
    for session, last in commit.closed_sessions.items():
        if last is None:
            forgotten.append(session)
        else:
            closed += (session, f"{last.n_in}:{last.n_out}")
    for call, answer in commit.answered_calls.items():
        if answer is None:
            forgotten.append(_CALL + call)
        else:
            closed += (_CALL + call, b"%d:%s" % (answer.code, answer.body))
    if commit.trace:
        closed += (_TRACE, _IS_TRACE + commit.trace)
    sections = [part for section in (sets, deletes, closed, forgotten) for part in (len(section), *section)]
    sent = encode_entry(commit.entry) if commit.entry else b""
    keys = room_key(commit.room), stream_key(commit.room), closed_sessions_key(commit.room)
    head = ("EVALSHA", _SHA, 3, *keys, commit.expected, commit.version, commit.token)
    return (*head, entries_kept or "", KEEP_CLOSED_S, sent, commit.deletion_token, *sections)


def _stored(fields: Any, closed: Any) -> Stored:
    try:
        return _read(fields, closed)
    except (ValueError, TypeError, ResponseError) as broken:
        return Stored("", {}, {}, unreadable=str(broken))


def _read(fields: Any, closed: Any) -> Stored:
    """Raises ValueError, TypeError or `ResponseError` if the keys do not hold a room."""
    for reply in (fields, closed):
        if isinstance(reply, ResponseError):
            raise reply
    named = {name.decode(): value for name, value in pairs(fields)}
    version = named.pop("v", b"").decode()
    named.pop("token", None)
    known = {name.decode(): value for name, value in pairs(closed)}
    deletion_token = known.pop(_DELETED, b"").decode()
    trace = known.pop(_TRACE).removeprefix(_IS_TRACE) if known.get(_TRACE, b"").startswith(_IS_TRACE) else b""
    last: dict[str, ClosedSession] = {}
    answers: dict[str, StoredAnswer] = {}
    for name, value in known.items():
        first, _, rest = value.partition(b":")
        if name.startswith(_CALL):
            answers[name.removeprefix(_CALL)] = StoredAnswer(int(first), rest)
        else:
            last[name] = ClosedSession(int(first), int(rest))
    return Stored(version, named, last, answers, "" if version else deletion_token, trace=trace)
