"""What the media node reports, applied to the room."""

from typing import TYPE_CHECKING, assert_never

from roomworker.core import consumers, transports
from shared.protocol import bus, media

if TYPE_CHECKING:
    from roomworker.core.room import Room


def event(room: "Room", item: bus.MediaEvent) -> None:
    """One engine event. Those of another placement, and those already applied, have no effect (DELIVERY I6, T3)."""
    placement = room.meta.placement
    if (
        placement is None
        or (item.incarnation, item.epoch, item.node) != (room.incarnation, placement.epoch, placement.node)
        or item.n <= room.meta.events
    ):
        return
    reported: media.AnyEvent = media.decode_event(item.event)
    match reported:
        case media.ProfileChanged(object=engine, profile=profile):
            peer, fed = room.consumers_by_engine.get(engine, (None, None))
            if peer is None or fed is None:
                room.keep_early_profile(engine, profile)
                return
            consumers.profile_changed(room, peer, fed, profile)
        case media.RouterClosed():
            lose(room)
        case media.IceStateChanged() | media.DtlsStateChanged() | media.Score():
            return
        case _:
            assert_never(reported)
    room.meta.events = item.n
    room.save_meta()


def lose(room: "Room") -> None:
    """The node or its engine has died: every transport is gone, and the room free to be placed anew.

    Should the node live after all, it is told to close what it has of the room.
    """
    for peer in list(room.peers.values()):
        for lost in list(peer.transports.values()):
            transports.shut(room, peer, lost)
    room.unplace()
