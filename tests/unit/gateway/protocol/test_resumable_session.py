"""Resumable sessions in one gateway: the session frame, the client's numbers, resumption, lost sockets."""

import json
from typing import Any

import pytest

from gateway.protocol import handshake
from gateway.protocol.events import Close, Event, Events, Forgotten, Publish, ResumeAnswered
from gateway.protocol.frame_validation import validate
from gateway.protocol.handshake import Resumption
from gateway.protocol.repeat_timer import LONGEST_INTERVAL
from gateway.protocol.resumable_session import ACK_EVERY, RESUMPTION_TIMEOUT, FramePosition, ResumableSession
from shared import errors
from shared.protocol.bus import (
    AnyItem,
    Applied,
    Connect,
    ConnectionLost,
    Input,
    Link,
    Message,
    Replay,
    Resume,
    decode_item,
)
from shared.protocol.protoo import Frame

ID = "gateway-1.7"
SECRET = "0123456789abcdef" * 2


def opened() -> ResumableSession:
    session = ResumableSession("room", ID, 7, grace=15, secret=SECRET)
    session.connect("alice", 1000)
    return session


def established() -> ResumableSession:
    session = opened()
    drain(session)
    apply(session, 0)
    return session


def resuming(ack: int = 3) -> ResumableSession:
    session = ResumableSession("room", ID, 9, grace=15, resume=Resumption(ID, "hash", ack, attempt=2))
    session.connect("alice", 1000)
    return session


def resumed(ack: int = 3, n: int = 5, out: int = 3) -> ResumableSession:
    session = resuming(ack)
    drain(session)
    session.linked(link("resumed", n, out))
    return session


def link(state: Any, n: int = 0, out: int = 0) -> Link:
    return Link(9, ID, state, n, out)


def drain(session: ResumableSession) -> list[AnyItem]:
    items = []
    while (item := session.take()) is not None:
        items.append(decode_item(item))
    return items


def apply(session: ResumableSession, n: int, out: int = 0) -> list[dict[str, Any]]:
    return frames(session.applied(Applied(session.connection, ID, n, out)))


def frames(events: Events) -> list[dict[str, Any]]:
    return [json.loads(event.body) for event in events if isinstance(event, Message)]


def others(events: Events) -> list[Event]:
    """The events that are no frames."""
    return [event for event in events if not isinstance(event, Message)]


def output(session: ResumableSession, out: int) -> list[dict[str, Any]]:
    return frames(session.receive(out, Message(b'{"o":%d}' % out, [])))


def put(session: ResumableSession, cseq: int | None, **fields: Any) -> FramePosition:
    numbered = {} if cseq is None else {"cseq": cseq}
    return put_text(session, json.dumps({"notification": True, "method": "m", **numbered, **fields}))


def put_text(session: ResumableSession, text: str) -> FramePosition:
    result = validate(text, len(text), 1000)
    position = session.position_of(result)
    if position is FramePosition.NEXT:
        if isinstance(result, Frame):
            session.input(result)
        else:
            session.reject(None, 400, "bad")
    return position


# --- a new session ------------------------------------------------------------------------------------------


def test_the_session_frame_follows_the_applied_connect_with_its_token() -> None:
    session = opened()
    (connect,) = drain(session)
    assert isinstance(connect, Connect)
    (greeting,) = apply(session, 0)
    assert (greeting["method"], greeting["data"]["resumed"], greeting["data"]["graceSeconds"]) == (
        "session",
        False,
        15,
    )
    assert greeting.keys() == {"notification", "method", "data"}

    wanted = handshake.parse(f"roomId=r&peerName=p&resumable=1&resume={greeting['data']['token']}&ack=0&attempt=1")
    assert wanted is not None
    assert wanted.resume == Resumption(ID, connect.token, 0, 1)
    assert apply(session, 0) == []


def test_outputs_wait_for_the_session_frame() -> None:
    session = opened()
    drain(session)
    assert output(session, 2) == output(session, 1) == output(session, 0) == []
    assert drain(session) == []
    greeting, *rest = apply(session, 0, out=2)
    assert greeting["method"] == "session"
    assert rest == [{"seq": 1, "ack": 0, "o": 1}, {"seq": 2, "ack": 0, "o": 2}]


def test_an_unnumbered_close_does_not_wait_for_the_session_frame() -> None:
    message = Message(b"bye", [], close=4000)
    assert list(opened().receive(0, message)) == [message]


def test_outputs_carry_their_number_and_the_last_applied_input() -> None:
    session = established()
    put(session, 1)
    put(session, 2)
    assert output(session, 1) == [{"seq": 1, "ack": 0, "o": 1}]
    apply(session, 1)
    assert output(session, 3) == []
    assert output(session, 2) == [{"seq": 2, "ack": 1, "o": 2}, {"seq": 3, "ack": 1, "o": 3}]
    assert output(session, 0) == [{"o": 0}]


def test_a_close_among_the_outputs_is_passed_unchanged() -> None:
    session = established()
    message = Message(b"bye", [], close=4000)
    assert list(session.receive(1, message)) == [message]


def test_applied_inputs_without_outputs_are_acknowledged_at_intervals() -> None:
    session = established()
    for n in range(1, ACK_EVERY + 2):
        put(session, n)
    assert apply(session, ACK_EVERY - 1) == []
    assert [frame["data"] for frame in apply(session, ACK_EVERY)] == [{"ack": ACK_EVERY}]
    assert apply(session, ACK_EVERY + 1) == []


# --- the client's numbers -----------------------------------------------------------------------------------


def test_an_input_keeps_the_clients_number() -> None:
    session = established()
    assert [put(session, n) for n in (1, 2, 2, 1, 3, 5)] == [
        FramePosition.NEXT,
        FramePosition.NEXT,
        FramePosition.DUPLICATE,
        FramePosition.DUPLICATE,
        FramePosition.NEXT,
        FramePosition.AHEAD,
    ]
    assert [item.n for item in drain(session) if isinstance(item, Input)] == [1, 2, 3]


def test_frames_without_a_valid_number_are_unnumbered() -> None:
    session = established()
    assert {put(session, None)} | {put(session, cseq) for cseq in (0, -1, 2**53)} == {FramePosition.UNNUMBERED}
    assert put_text(session, "[]") is FramePosition.UNNUMBERED


@pytest.mark.parametrize("extra", [{"method": 5}, {"request": True}, {"method": ""}, {"response": True}])
def test_an_invalid_frame_with_a_number_takes_that_number(extra: dict[str, Any]) -> None:
    session = established()
    assert put(session, 1, **extra) is FramePosition.NEXT
    assert put(session, 2) is FramePosition.NEXT


def test_a_response_with_a_number_takes_that_number() -> None:
    assert put_text(established(), '{"response":true,"id":1,"ok":true,"cseq":1}') is FramePosition.NEXT


def test_an_unreadable_frame_takes_the_next_number() -> None:
    session = established()
    assert put(session, 1) is FramePosition.NEXT
    assert put_text(session, "{") is FramePosition.NEXT
    assert put_text(session, "}") is FramePosition.NEXT
    assert put(session, 4) is FramePosition.NEXT
    assert put(session, 2) is FramePosition.DUPLICATE


@pytest.mark.parametrize("broken", [1, 2])
def test_a_number_reused_after_an_unreadable_frame_is_out_of_sequence(broken: int) -> None:
    session = established()
    put(session, 1)
    for _ in range(broken):
        put_text(session, "{")
    assert put(session, 2) is FramePosition.OUT_OF_SEQUENCE


# --- a session that goes on ---------------------------------------------------------------------------------


def test_a_resumption_is_requested_until_it_is_answered() -> None:
    session = resuming()
    asked = Resume("room", ID, 9, "hash", 2, 3)
    assert drain(session) == [asked]
    assert session.awaits_worker
    session.rewind()
    assert drain(session) == [asked]
    session.linked(link("resumed", 5, 3))
    session.rewind()
    assert drain(session) == []
    assert not session.awaits_worker


def test_a_resumed_session_replays_outputs_and_expects_the_next_input() -> None:
    session = resuming(ack=3)
    drain(session)
    (greeting,) = frames(session.linked(link("resumed", 5, 4)))
    assert greeting["data"] == {"resumed": True, "in": 5, "graceSeconds": 15}
    assert drain(session) == [Replay("room", ID, 9, 3)]
    assert output(session, 3) == []
    assert output(session, 4) == [{"seq": 4, "ack": 5, "o": 4}]
    assert [put(session, n) for n in (5, 6)] == [FramePosition.DUPLICATE, FramePosition.NEXT]
    (item,) = drain(session)
    assert isinstance(item, Input)
    assert (item.n, item.connection) == (6, 9)


def test_outputs_before_the_resumption_is_answered_wait_for_it() -> None:
    session = resuming(ack=3)
    drain(session)
    assert output(session, 4) == output(session, 2) == []
    assert apply(session, 5, out=4) == []
    assert drain(session) == []
    greeting, first = frames(session.linked(link("resumed", 5, 4)))
    assert greeting["method"] == "session"
    assert first == {"seq": 4, "ack": 5, "o": 4}
    assert drain(session) == []


def test_a_repeated_answer_to_a_resumption_changes_nothing() -> None:
    session = resumed(n=5)
    put(session, 6)
    assert session.linked(link("resumed", 5, 3)) == ()
    assert put(session, 7) is FramePosition.NEXT


def test_a_refused_resumption_is_answered_and_forgotten() -> None:
    session = resuming()
    drain(session)
    events = session.linked(link("refused"))
    assert [frame["data"] for frame in frames(events)] == [{"resumed": False}]
    assert others(events) == [ResumeAnswered(resumed=False), Close(errors.SESSION_UNKNOWN)]
    assert session.disconnect() == (Forgotten(),)


def test_a_resumption_with_too_high_an_ack_is_refused_and_final() -> None:
    session = resuming(ack=10)
    drain(session)
    events = session.linked(link("resumed", 5, 9))
    assert [frame["data"] for frame in frames(events)] == [{"resumed": False}]
    assert others(events) == [ResumeAnswered(resumed=False), Close(errors.SESSION_UNKNOWN)]
    assert not session.established
    session.disconnect()
    assert drain(session) == [ConnectionLost("room", ID, 9, final=True)]


def test_a_frame_before_the_resumption_is_answered_is_out_of_sequence() -> None:
    assert put(resuming(), 6) is FramePosition.OUT_OF_SEQUENCE


def test_an_unanswered_resumption_closes_the_connection_in_the_end() -> None:
    session = resuming()
    too_late = Close(errors.UNAVAILABLE)
    assert all(too_late not in session.sweep() for _ in range(RESUMPTION_TIMEOUT))
    assert too_late in session.sweep()


# --- the end of a connection --------------------------------------------------------------------------------


def test_a_lost_socket_is_reported_after_the_inputs_until_released() -> None:
    session = established()
    put(session, 1)
    session.disconnect()
    first, last = drain(session)
    assert isinstance(first, Input)
    assert last == ConnectionLost("room", ID, 7, final=False)
    session.rewind()
    assert len(drain(session)) == 2
    assert session.linked(link("released")) == (Forgotten(),)
    assert session.size == 0
    assert drain(session) == []


def test_a_final_disconnect_waits_until_its_last_inputs_are_applied() -> None:
    session = established()
    put(session, 1)
    session.final = True
    session.disconnect()
    (item,) = drain(session)
    assert isinstance(item, Input)
    apply(session, 1)
    assert drain(session) == [ConnectionLost("room", ID, 7, final=True)]


def test_a_final_disconnect_stops_waiting_after_silence() -> None:
    session = established()
    put(session, 1)
    session.final = True
    session.disconnect()
    drain(session)
    for _ in range(LONGEST_INTERVAL):
        session.sweep()
    assert drain(session)[-1] == ConnectionLost("room", ID, 7, final=True)


def test_a_lost_socket_is_reported_only_after_the_applied_connect() -> None:
    session = opened()
    drain(session)
    session.disconnect()
    assert drain(session) == []
    assert session.awaits_worker
    assert apply(session, 0) == []
    assert drain(session) == [ConnectionLost("room", ID, 7)]


def test_a_socket_lost_while_resuming_is_reported_after_the_answer() -> None:
    session = resuming()
    drain(session)
    assert session.disconnect() == ()
    assert drain(session) == []
    assert session.linked(link("resumed", 5, 4)) == (ResumeAnswered(resumed=True), Publish())
    assert drain(session) == [ConnectionLost("room", ID, 9)]
    assert session.linked(link("released")) == (Forgotten(),)


@pytest.mark.parametrize("session", [opened(), resuming()])
def test_an_unpublished_connection_is_forgotten_without_a_report(session: ResumableSession) -> None:
    assert session.disconnect() == (Forgotten(),)
    assert drain(session) == []


def test_a_released_connection_is_closed_and_forgotten() -> None:
    session = established()
    put(session, 1)
    assert session.linked(link("released")) == (Close(errors.RELEASED),)
    assert session.size == 0
    assert session.disconnect() == (Forgotten(),)
