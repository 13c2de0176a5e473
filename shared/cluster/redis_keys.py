"""Names every key that Plenary has in Redis.

room:{R}                  hash    v (its version), token, and a record per object; R percent-encoded
room:{R}:out              stream  an entry per commit with its messages and orders
room:{R}:closed_sessions  hash    closed session → its last numbers; API calls' answers; the deletion's token
plenary:partition:<p>     set     the rooms of a partition: `R#incarnation`, R percent-encoded (DELIVERY C5)
plenary:attempts:<p>      hash    redelivered message or batch → how many workers have begun to run it
plenary:dead              stream  messages that were set aside, with the reason
plenary:gateways          hash    process id → JSON with its heartbeat; the same for plenary:workers, plenary:nodes
plenary:partitions        string  the number of partitions
plenary:epoch             string  a random value, which is missing when Redis was emptied
plenary:time              zset    `ms` → the cluster's time, as its leader last put it there (DELIVERY T1)
"""

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias
from urllib.parse import quote, unquote

Role: TypeAlias = Literal["gateways", "workers", "nodes"]

PARTITIONS_KEY: Final = "plenary:partitions"
EPOCH_KEY: Final = "plenary:epoch"
TIME_KEY: Final = "plenary:time"
DEAD_LETTERS_KEY: Final = "plenary:dead"
CLOSED_SESSIONS_PATTERN: Final = "room:{*}:closed_sessions"
"""The pattern of the keys that `closed_sessions_key` makes."""


def members_key(role: Role) -> str:
    """Returns the key of the registry of a role's processes."""
    return f"plenary:{role}"


def index_key(partition: int) -> str:
    """Returns the key of the set of a partition's rooms."""
    return f"plenary:partition:{partition}"


def attempts_key(partition: int) -> str:
    """Returns the key of the hash that counts a partition's attempts to run what was redelivered."""
    return f"plenary:attempts:{partition}"


def room_key(room: str) -> str:
    """Returns the key of the room's hash.

    The name is percent-encoded, so that no `}` in it ends the hash tag (DELIVERY C6).
    """
    return f"room:{{{quote(room, safe='')}}}"


def stream_key(room: str) -> str:
    """Returns the key of the stream of the room's commits."""
    return f"{room_key(room)}:out"


def closed_sessions_key(room: str) -> str:
    """Returns the key of the hash of the room's closed sessions."""
    return f"{room_key(room)}:closed_sessions"


def room_key_of(closed_sessions: bytes) -> bytes:
    """Returns the key of the hash of the room that a key of closed sessions belongs to."""
    return closed_sessions.rpartition(b":")[0]


def index_member(room: str, incarnation: str) -> str:
    """Returns a room's entry in the index of its partition."""
    return f"{quote(room, safe='')}#{incarnation}"


def indexed_rooms(members: Iterable[str]) -> list[str]:
    """Returns the names in the entries of an index, in order, each once.

    A name has two entries if a worker died between an index and a first commit, or between a deletion and the index.
    """
    return sorted({unquote(member.rpartition("#")[0]) for member in members})
