"""The journal: what a commit carries, and what is remembered up to a limit."""

import json

from roomworker.core.journal import ANSWERED_CALLS_LIMIT
from roomworker.core.model import ClosedSession, Peer, PeerData, Placement, Session, StoredAnswer
from roomworker.core.room import Room
from shared.protocol import bus, client, media
from shared.protocol.rtp import RtpCapabilities


def room_with_alice() -> tuple[Room, Peer]:
    """A room with one joined peer, and nothing to commit."""
    room = Room("room", 0, "incarnation")
    session = Session(id="s", peer="alice", gateway="gateway", connection=1, accepted=1)
    peer = Peer(PeerData(name="alice", number=1, rtp_capabilities=RtpCapabilities([])), session)
    room.sessions[session.id] = room.session_of["alice"] = session
    room.peers["alice"] = peer
    return room, peer


def call(n: int) -> bus.Call:
    return bus.Call("room", f"key{n}", "gateway", n, b"{}")


def test_take_hands_over_all_changes_and_starts_anew() -> None:
    room, alice = room_with_alice()
    room.save(alice.field, alice.data)
    room.delete("peer|bob")
    room.notify([alice], client.PeerClosed(name="bob"))
    assert room.changed

    changes = room.take()

    assert (changes.n, room.n, room.next_n) == (1, 1, 2)
    assert set(changes.fields) == {"peer|alice", "peer|bob", "session|alice"}
    assert changes.fields["peer|bob"] is None
    assert changes.applied == [(alice.session, 0, 1)]
    assert [(session.id, out) for session, out in changes.messages[0].to] == [("s", 1)]
    assert not room.changed
    assert room.take().fields == {}


def test_record_is_stored_as_it_is_when_the_commit_is_taken() -> None:
    room, alice = room_with_alice()
    room.save(alice.field, alice.data)
    alice.data.generation = 7

    stored = room.take().fields["peer|alice"]

    assert stored is not None
    assert json.loads(stored)["generation"] == 7


def test_closed_session_is_reported_but_not_stored() -> None:
    room, alice = room_with_alice()
    alice.session.n_in = 3
    del room.sessions["s"]
    room.delete(alice.session.field)
    room.record_closed_session(alice.session)
    room.save_session(alice.session)

    changes = room.take()

    assert changes.fields == {"session|alice": None}
    assert changes.closed_sessions == {"s": ClosedSession(3, 0)}
    assert changes.applied == [(alice.session, 3, 0)]


def test_frame_without_receivers_is_not_encoded() -> None:
    room, _ = room_with_alice()

    room.send_to_peers([], lambda: 1 / 0)  # type: ignore[arg-type, return-value]

    assert not room.changed


def test_outputs_of_a_session_without_connection_are_summed_up() -> None:
    room, alice = room_with_alice()
    room.send(alice.session, b"12345")
    alice.session.lost_at = 1000
    room.send(alice.session, b"123")

    assert (alice.session.n_out, alice.session.lost_bytes) == (2, 3)


def test_order_of_a_room_without_placement_is_not_sent() -> None:
    room, _ = room_with_alice()
    order = media.Close(object="router", v=1, kind="router")
    room.order(order)
    assert not room.changed

    room.meta.placement = Placement("node", 1)
    room.order(order)

    assert room.take().orders == [("node", order)]


def test_answered_calls_are_remembered_up_to_a_limit() -> None:
    room, _ = room_with_alice()
    for n in range(ANSWERED_CALLS_LIMIT + 1):
        room.answer_call(call(n), 200, b"{}", keep=True)

    changes = room.take()

    assert len(room.answered_calls) == ANSWERED_CALLS_LIMIT
    assert changes.answered_calls["key0"] is None
    assert changes.answered_calls["key1"] == StoredAnswer(200, b"{}")


def test_answer_that_is_not_kept_is_only_replied() -> None:
    room, _ = room_with_alice()
    room.answer_call(call(5), 404, b"room: no room", keep=False)

    assert not room.changed
    assert room.take_replies() == [("gateway", bus.CallAnswer(5, 404, b"room: no room"))]
    assert room.take_replies() == []


def test_resumed_session_is_reported_with_the_numbers_of_the_commit() -> None:
    room, alice = room_with_alice()
    room.reply_resumed(alice.session)
    room.send(alice.session, b"frame")

    assert room.take().replies == [("gateway", bus.Link(1, "s", "resumed", 0, 1))]
