"""What the application's server asks for through the server API, done to the room (`shared.protocol.actions`)."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET

from roomworker.core import consumers, messages, peers, producers, sessions, transports
from roomworker.core.peers import Peer
from roomworker.core.room import Created, Room
from roomworker.core.rtp import ortc
from roomworker.core.rtp.codecs import own_capabilities
from shared.errors import LEFT, ROOM_CLOSED, Conflict, NotFound, PlenaryError
from shared.protocol import actions, bus, client

OK: Final = 200


def call(room: Room, item: bus.Call) -> None:
    """Carries a call out, or refuses it; answers it either way. One that was answered is only answered again."""
    before = room.answered.get(item.key)
    if before is not None:
        room.answer(item, before.code, before.body, keep=False)
        return
    try:
        action = actions.decode(item.action)
        if not room.exists and not isinstance(action, actions.CreateRoom):
            raise NotFound(f"room: no room {room.name!r}")
        answer = HANDLERS[type(action)](room, action)
    except PlenaryError as refused:
        refuse(room, item, refused)
        return
    room.answer(item, OK, actions.encode(answer), keep=not isinstance(action, actions.READ_ACTIONS))


def refuse(room: Room, item: bus.Call, why: PlenaryError) -> None:
    """Not remembered: the same call may succeed another time."""
    room.answer(item, why.code, why.reason.encode(), keep=False)


def _peer(room: Room, name: str) -> Peer:
    peer = room.peers.get(name)
    if peer is None:
        raise NotFound(f"peer: no peer {name!r}")
    return peer


# --- reading --------------------------------------------------------------------------------------------------


def inspect_room(room: Room, _: actions.InspectRoom) -> actions.RoomView:
    created, placement = room.meta.created, room.meta.placement
    return actions.RoomView(
        name=room.name,
        connections=len(room.sessions),
        peers=[_summary(peer) for peer in room.peers.values()],
        media_node=placement.node if placement else None,
        codecs=[codec.name for codec in room.rtp_capabilities.codecs if codec.name != "rtx"],
        limits=actions.RoomLimits(
            peers=room.limits.peers,
            transports_per_peer=room.limits.transports_per_peer,
            producers_per_peer=room.limits.producers_per_peer,
            max_incoming_bitrate=room.limits.max_incoming_bitrate,
        ),
        app_data=created.app_data if created else UNSET,
    )


def _summary(peer: Peer) -> actions.PeerSummary:
    return actions.PeerSummary(
        name=peer.name,
        spy=peer.data.spy,
        transports=len(peer.transports),
        producers=len(peer.producers),
        app_data=peer.data.app_data,
    )


def inspect_peer(room: Room, action: actions.InspectPeer) -> actions.PeerView:
    peer = _peer(room, action.peer)
    return actions.PeerView(
        name=peer.name,
        gateway=peer.session.gateway,
        spy=peer.data.spy,
        transports=[
            actions.TransportView(t.id, t.direction, t.connected, t.app_data) for t in peer.transports.values()
        ],
        producers=[
            actions.ProducerView(
                id=p.id,
                consumer_id=p.number,
                kind=p.kind,
                transport_id=p.transport,
                locally_paused=p.locally_paused,
                remotely_paused=p.remotely_paused,
                profiles=ortc.profiles(p.rtp_parameters),
                app_data=p.app_data,
            )
            for p in peer.producers.values()
        ],
        consumers=[
            _consumer(room, peer, number) for number, (sender, _) in room.sources.items() if sender is not peer
        ],
        app_data=peer.data.app_data,
    )


def _consumer(room: Room, peer: Peer, number: int) -> actions.ConsumerView:
    found, sender, source = consumers.find(room, peer, number)
    return actions.ConsumerView(
        id=number,
        kind=source.kind,
        source_peer=sender.name,
        transport_id=found.transport,
        locally_paused=found.locally_paused,
        remotely_paused=found.remotely_paused,
        source_paused=source.paused,
        preferred_profile=found.preferred_profile,
        effective_profile=found.effective_profile,
    )


# --- the room -------------------------------------------------------------------------------------------------


def create_room(room: Room, action: actions.CreateRoom) -> actions.RoomView:
    created = room.meta.created
    if room.exists:
        asked, own = (action.codecs, action.limits), (None, actions.RoomLimits())
        if asked != ((created.codecs, created.limits) if created else own):
            raise Conflict(f"room: {room.name!r} exists with other codecs or limits")
    elif action.codecs is not None:
        own_capabilities(action.codecs)  # or the room could never be read again
    room.limits.check_app_data(action.app_data)
    room.meta.created = Created(
        codecs=action.codecs,
        limits=action.limits,
        idle_seconds=action.idle_seconds,
        app_data=client.copy_app_data(action.app_data)
        if action.app_data is not UNSET or not created
        else created.app_data,
    )
    room.configure()
    room.save_meta()
    return inspect_room(room, actions.InspectRoom())


def close_room(room: Room, action: actions.CloseRoom) -> actions.Done:
    room.notify(room.peers.values(), client.Closed(app_data=action.app_data))
    for peer in list(room.peers.values()):
        peers.discard(room, peer)  # everybody leaves: nobody needs to hear it of everybody
    for session in list(room.sessions.values()):
        sessions.end(room, session, ROOM_CLOSED)
    _uncreate(room)
    return actions.Done()


def _uncreate(room: Room) -> None:
    room.meta.created = None
    room.configure()  # whoever comes before the room has left memory finds it as it will be read
    room.save_meta()


def idle(room: Room, now: int) -> None:
    """Lets a created room go when it has been without anybody for its `idle_seconds`. `now` in ms."""
    created = room.meta.created
    if created is None or room.sessions:
        return
    if created.idle_since is None:
        created.idle_since = now
        room.save_meta()
    elif now - created.idle_since >= created.idle_seconds * 1000:
        _uncreate(room)


# --- its objects ----------------------------------------------------------------------------------------------


def close_peer(room: Room, action: actions.ClosePeer) -> actions.Done:
    session = room.session_of.get(action.peer)
    if session is None:
        raise NotFound(f"peer: no peer {action.peer!r}")
    peer = room.peers.get(action.peer)
    if peer is not None:
        room.notify([peer], client.Closed(app_data=action.app_data))
    sessions.end(room, session, LEFT, action.app_data)
    return actions.Done()


def close_transport(room: Room, action: actions.CloseTransport) -> actions.Done:
    peer = _peer(room, action.peer)
    transports.shut(room, peer, transports.find(peer, action.id), action.app_data)
    return actions.Done()


def set_max_bitrate(room: Room, action: actions.SetMaxBitrate) -> actions.Done:
    peer = _peer(room, action.peer)
    found = transports.find(peer, action.id)
    if found.direction != "send":
        raise Conflict(f"id: transport {action.id} is for receiving")
    transports.limit_bitrate(room, found, action.bitrate)
    return actions.Done()


def pause_producer(room: Room, action: actions.PauseProducer) -> actions.Done:
    producers.set_locally_paused(room, _peer(room, action.peer), action.id, paused=True, app_data=action.app_data)
    return actions.Done()


def resume_producer(room: Room, action: actions.ResumeProducer) -> actions.Done:
    producers.set_locally_paused(room, _peer(room, action.peer), action.id, paused=False, app_data=action.app_data)
    return actions.Done()


def close_producer(room: Room, action: actions.CloseProducer) -> actions.Done:
    producers.shut(room, _peer(room, action.peer), action.id, action.app_data)
    return actions.Done()


def pause_consumer(room: Room, action: actions.PauseConsumer) -> actions.Done:
    consumers.set_locally_paused(room, _peer(room, action.peer), action.id, paused=True, app_data=action.app_data)
    return actions.Done()


def resume_consumer(room: Room, action: actions.ResumeConsumer) -> actions.Done:
    consumers.set_locally_paused(room, _peer(room, action.peer), action.id, paused=False, app_data=action.app_data)
    return actions.Done()


def set_consumer_profile(room: Room, action: actions.SetConsumerProfile) -> actions.Done:
    consumers.prefer_profile(room, _peer(room, action.peer), action.id, action.profile)
    return actions.Done()


def request_key_frame(room: Room, action: actions.RequestKeyFrame) -> actions.Done:
    consumers.request_key_frame(room, _peer(room, action.peer), action.id)
    return actions.Done()


def send_message(room: Room, action: actions.SendMessage) -> actions.Done:
    messages.send(room, action.data, _peer(room, action.peer) if action.peer is not None else None)
    return actions.Done()


HANDLERS: Final[dict[type[actions.Action], Callable[..., Any]]] = {
    actions.InspectRoom: inspect_room,
    actions.InspectPeer: inspect_peer,
    actions.CreateRoom: create_room,
    actions.CloseRoom: close_room,
    actions.ClosePeer: close_peer,
    actions.CloseTransport: close_transport,
    actions.SetMaxBitrate: set_max_bitrate,
    actions.PauseProducer: pause_producer,
    actions.ResumeProducer: resume_producer,
    actions.CloseProducer: close_producer,
    actions.PauseConsumer: pause_consumer,
    actions.ResumeConsumer: resume_consumer,
    actions.SetConsumerProfile: set_consumer_profile,
    actions.RequestKeyFrame: request_key_frame,
    actions.SendMessage: send_message,
}
