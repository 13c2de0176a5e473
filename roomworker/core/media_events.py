"""Applies to the room the events that its media node reports."""

from typing import assert_never

from roomworker.core import consumers, engine_deaths, teardown
from roomworker.core.room import Room
from shared.protocol import bus, media


def apply(room: Room, item: bus.MediaEvent, now: int) -> None:
    """Applies one engine event; `now` in ms, room time.

    Events of another placement, or applied already, have no effect (DELIVERY I6, T3).
    """
    placement = room.meta.placement
    if (
        placement is None
        or (item.incarnation, item.epoch, item.node) != (room.incarnation, placement.epoch, placement.node)
        or item.n <= room.meta.events
    ):
        return
    event: media.AnyEvent = media.decode_event(item.event)
    match event:
        case media.ProfileChanged(object=engine, profile=profile):
            peer, consumer = room.consumers_by_engine.get(engine, (None, None))
            if peer is None or consumer is None:
                room.keep_early_profile(engine, profile)
                return
            consumers.profile_changed(room, peer, consumer, profile)
        case media.RouterClosed(engine_died=engine_died, other_suspects=others):
            if engine_died:
                room.meta.engine_deaths = engine_deaths.record(room.meta.engine_deaths, now, alone=others == 0)
            teardown.lose_media_node(room)
        case media.IceStateChanged() | media.DtlsStateChanged() | media.Score():
            return
        case _:
            assert_never(event)
    room.meta.events = item.n
    room.save_meta()
