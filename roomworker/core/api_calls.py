"""Calls of the server API: what the application's server asks of the room (`shared.protocol.actions`)."""

from typing import Final, assert_never

from msgspec import UNSET

from roomworker.core import consumers, messages, producers, teardown, transports
from roomworker.core.model import Created, Peer
from roomworker.core.room import Room
from roomworker.core.rtp import ortc
from roomworker.core.rtp.codecs import own_capabilities
from shared.errors import LEFT, Conflict, NotFound, PlenaryError, quoted
from shared.protocol import actions, bus, client

OK: Final = 200


def handle(room: Room, call: bus.Call) -> None:
    """Carries a call out, or rejects it, and answers it either way. A repeated call gets the stored answer."""
    stored = room.answered_calls.get(call.key)
    if stored is not None:
        room.answer_call(call, stored.code, stored.body, keep=False)
        return
    try:
        action = actions.decode(call.action)
        if not room.exists and not isinstance(action, actions.CreateRoom):
            raise NotFound(f"room: no room {quoted(room.name)}")
        if isinstance(action, actions.CreateRoom | actions.SendMessage):
            room.limits.growth.check()
        room.limits.check_app_data(getattr(action, "app_data", UNSET))
        answer = _perform(room, action)
    except PlenaryError as rejection:
        reject(room, call, rejection)
        return
    room.answer_call(call, OK, actions.encode(answer), keep=not isinstance(action, actions.READ_ACTIONS))


def reject(room: Room, call: bus.Call, why: PlenaryError) -> None:
    """Answers with an error, which is not stored: the same call may succeed another time."""
    room.answer_call(call, why.code, why.reason.encode(), keep=False)


def _perform(room: Room, action: actions.AnyAction) -> actions.AnyAnswer:
    """Carries an action out; returns its answer. Raises `PlenaryError`; the room is then unchanged."""
    match action:
        case actions.InspectRoom():
            return inspect_room(room)
        case actions.InspectPeer():
            return inspect_peer(room, action)
        case actions.CreateRoom():
            return create_room(room, action)
        case actions.CloseRoom():
            teardown.close_room_by_server(room, action.app_data)
        case actions.ClosePeer():
            close_peer(room, action)
        case actions.CloseTransport():
            close_transport(room, action)
        case actions.SetMaxBitrate():
            set_max_bitrate(room, action)
        case actions.PauseProducer() | actions.ResumeProducer():
            paused = isinstance(action, actions.PauseProducer)
            peer = _peer(room, action.peer)
            producers.set_locally_paused(room, peer, action.id, paused=paused, app_data=action.app_data)
        case actions.CloseProducer():
            close_producer(room, action)
        case actions.PauseConsumer() | actions.ResumeConsumer():
            paused = isinstance(action, actions.PauseConsumer)
            peer = _peer(room, action.peer)
            consumers.set_locally_paused(room, peer, action.id, paused=paused, app_data=action.app_data)
        case actions.SetConsumerProfile():
            peer = _peer(room, action.peer)
            consumers.set_preferred_profile_by_server(room, peer, action.id, action.profile)
        case actions.RequestKeyFrame():
            consumers.request_key_frame(room, _peer(room, action.peer), action.id)
        case actions.SendMessage():
            messages.send(room, action.data, _peer(room, action.peer) if action.peer is not None else None)
        case _:
            assert_never(action)
    return actions.Done()


def _peer(room: Room, name: str) -> Peer:
    peer = room.peers.get(name)
    if peer is None:
        raise NotFound(f"peer: no peer {quoted(name)}")
    return peer


# --- reading --------------------------------------------------------------------------------------------------


def inspect_room(room: Room) -> actions.RoomView:
    """Returns the room as the server API shows it."""
    created, placement, deaths = room.meta.created, room.meta.placement, room.meta.engine_deaths
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
        media_refused_until=deaths.refused_until if deaths and deaths.refused_until else UNSET,
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
    """Returns the peer as the server API shows it, with a consumer for every producer of the others."""
    peer = _peer(room, action.peer)
    return actions.PeerView(
        name=peer.name,
        gateway=peer.session.gateway,
        spy=peer.data.spy,
        transports=[
            actions.TransportView(transport.id, transport.direction, transport.connected, transport.app_data)
            for transport in peer.transports.values()
        ],
        producers=[
            actions.ProducerView(
                id=producer.id,
                consumer_id=producer.number,
                kind=producer.kind,
                transport_id=producer.transport,
                locally_paused=producer.locally_paused,
                remotely_paused=producer.remotely_paused,
                profiles=ortc.profiles(producer.rtp_parameters),
                app_data=producer.app_data,
            )
            for producer in peer.producers.values()
        ],
        consumers=[
            _consumer(room, peer, number)
            for number, (sender, _) in room.producers_by_number.items()
            if sender is not peer
        ],
        app_data=peer.data.app_data,
    )


def _consumer(room: Room, peer: Peer, number: int) -> actions.ConsumerView:
    consumer, sender, producer = consumers.find(room, peer, number)
    return actions.ConsumerView(
        id=number,
        kind=producer.kind,
        source_peer=sender.name,
        transport_id=consumer.transport,
        locally_paused=consumer.locally_paused,
        remotely_paused=consumer.remotely_paused,
        source_paused=producer.paused,
        preferred_profile=consumer.preferred_profile,
        effective_profile=consumer.effective_profile,
    )


# --- the room -------------------------------------------------------------------------------------------------


def create_room(room: Room, action: actions.CreateRoom) -> actions.RoomView:
    """Creates the room, or changes idle time and appData of one created with the same codecs and limits."""
    created = room.meta.created
    if room.exists:
        asked, own = (action.codecs, action.limits), (None, actions.RoomLimits())
        if asked != ((created.codecs, created.limits) if created else own):
            raise Conflict(f"room: {quoted(room.name)} exists with other codecs or limits")
    elif action.codecs is not None:
        own_capabilities(action.codecs)  # checked before it is stored, else the room could never be loaded again
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
    return inspect_room(room)


def expire_idle_room(room: Room, now: int) -> None:
    """Gives up a created room that has been without sessions for its `idle_seconds`. `now` in ms, room time."""
    created = room.meta.created
    if created is None or room.sessions:
        return
    if created.idle_since is None or created.idle_since > now:
        created.idle_since = now
        room.save_meta()
    elif now - created.idle_since >= created.idle_seconds * 1000:
        teardown.forget_creation(room)


# --- peers and their objects --------------------------------------------------------------------------------


def close_peer(room: Room, action: actions.ClosePeer) -> None:
    """Closes the peer's session and socket; the peer is sent `closed`, if it has joined."""
    session = room.session_of.get(action.peer)
    if session is None:
        raise NotFound(f"peer: no peer {quoted(action.peer)}")
    peer = room.peers.get(action.peer)
    if peer is not None:
        room.notify([peer], client.Closed(app_data=action.app_data))
    teardown.close_session_by_server(room, session, LEFT, action.app_data)


def close_transport(room: Room, action: actions.CloseTransport) -> None:
    """Closes a peer's transport; the peer is sent `transportClosed`."""
    peer = _peer(room, action.peer)
    teardown.close_transport_by_server(room, peer, transports.find(peer, action.id), action.app_data)


def close_producer(room: Room, action: actions.CloseProducer) -> None:
    """Closes a peer's producer; the peer is sent `producerClosed`."""
    peer = _peer(room, action.peer)
    teardown.close_producer_by_server(room, peer, producers.find(peer, action.id), action.app_data)


def set_max_bitrate(room: Room, action: actions.SetMaxBitrate) -> None:
    """Limits the incoming bitrate of a sending transport. Raises `Conflict` for a receiving one."""
    transport = transports.find(_peer(room, action.peer), action.id)
    if transport.direction != "send":
        raise Conflict(f"id: transport {action.id} is for receiving")
    transports.limit_bitrate(room, transport, action.bitrate)
