"""What is stored of a room: one JSON record per object, a field each of the hash `room:{R}`.

    meta   session|<peer>   peer|<peer>   transport|<id>|<peer>   producer|<id>|<peer>   consumer|<id>|<peer>

The peer's name stands last, so that it may contain anything. Records hold facts; what follows from them is
computed again on loading.
"""

from msgspec import Struct


class Record(Struct, rename="camel", eq=False):
    """Base of the room's objects: mutable, and stored as they are."""
