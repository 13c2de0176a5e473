"""Makes commands that Redis carries out although its `maxmemory` is reached.

Redis then refuses commands that may need memory, except in scripts that say otherwise. Such commands are few and
small: entries of processes, of rooms in the index, of messages that workers died with. What clients cause is bounded
before (`shared.cluster.redis_memory`).
"""

from typing import Any, Final

ALLOW_OOM: Final = "#!lua flags=allow-oom\n"
"""The first line of a script that is not refused; Redis understands it from version 7 on."""
_CALL: Final = f"{ALLOW_OOM}return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"


def unrefused(command: str, key: str, *arguments: Any) -> tuple[Any, ...]:
    """Returns a command that does the same as `command key arguments…`, also while Redis has no memory left."""
    return ("EVAL", _CALL, 1, key, command, *arguments)
