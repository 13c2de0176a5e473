"""AMQP without I/O: bytes written by pamqp become events, calls become bytes that pamqp reads."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from shared.broker.amqp import frames
from shared.broker.amqp.events import (
    Blocked,
    ChannelClosed,
    Closed,
    Confirmed,
    ConsumerCancelled,
    Delivered,
    Event,
    Opened,
    Replied,
    Returned,
)
from shared.broker.amqp.protocol import PROTOCOL_HEADER, AmqpProtocol
from tests.support.amqp_frames import decoded

PART = 64
"""Bytes of a body in one frame: few, so that some bodies have several frames."""
START = commands.Connection.Start(0, 9, {"product": "RabbitMQ"}, "AMQPLAIN PLAIN", "en_US")
ALIVE = frame.marshal(Heartbeat(), 0)


def starting(**options: Any) -> AmqpProtocol:
    settings: dict[str, Any] = {"heartbeat": 2, "virtual_host": "/", **options}
    return AmqpProtocol(user="guest", password="secret", name="test", **settings)


def receive(protocol: AmqpProtocol, method: Any, channel: int = 0) -> list[Event]:
    return protocol.receive(frame.marshal(method, channel))


def opened(*, channels: int = 0, tune: tuple[int, int, int] = (2047, 131072, 60), **options: Any) -> AmqpProtocol:
    """A connection after its handshake, with channels 1, 2 …"""
    protocol = starting(**options)
    receive(protocol, START)
    receive(protocol, commands.Connection.Tune(*tune))
    assert receive(protocol, commands.Connection.OpenOk()) == [Opened()]
    for _ in range(channels):
        number = protocol.open_channel()
        receive(protocol, commands.Channel.OpenOk(), number)
    protocol.take_output()
    return protocol


def sent(protocol: AmqpProtocol) -> list[tuple[int, Any]]:
    return decoded(protocol.take_output())


def closing(protocol: AmqpProtocol) -> tuple[int, str]:
    """Code and text of the only method sent, which closes the connection."""
    ((channel, method),) = sent(protocol)
    assert (channel, method.name) == (0, "Connection.Close")
    return method.reply_code, method.reply_text


# --- handshake ------------------------------------------------------------------------------------------------


def test_handshake_authenticates_and_opens_the_virtual_host() -> None:
    protocol = starting(virtual_host="calls")
    assert protocol.take_output() == PROTOCOL_HEADER

    assert receive(protocol, START) == []
    ((_, start_ok),) = sent(protocol)
    assert (start_ok.mechanism, start_ok.response) == ("PLAIN", "\0guest\0secret")
    assert start_ok.client_properties["connection_name"] == "test"
    assert start_ok.client_properties["capabilities"]["connection.blocked"] is True

    assert receive(protocol, commands.Connection.Tune(100, 8192, 60)) == []
    (_, tune_ok), (_, open_) = sent(protocol)
    assert (tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat) == (100, 8192, 2)
    assert open_.virtual_host == "calls"
    assert (protocol.channel_max, protocol.frame_max) == (100, 8192)
    assert not protocol.is_open

    assert receive(protocol, commands.Connection.OpenOk()) == [Opened()]
    assert protocol.is_open


@pytest.mark.parametrize(
    ("tune", "agreed"),
    [((0, 0, 0), (2047, 131072)), ((65535, 200_000, 60), (2047, 131072)), ((5, 4096, 60), (5, 4096))],
)
def test_limits_are_the_smaller_of_both_sides(tune: tuple[int, int, int], agreed: tuple[int, int]) -> None:
    protocol = opened(tune=tune)

    assert (protocol.channel_max, protocol.frame_max) == agreed


def test_server_without_plain_authentication_is_a_clear_error() -> None:
    (closed,) = receive(starting(), commands.Connection.Start(0, 9, {}, "EXTERNAL", "en_US"))

    assert isinstance(closed, Closed)
    assert "no PLAIN authentication" in closed.reason


def test_refused_credentials_are_reported_with_the_servers_text() -> None:
    protocol = starting()
    receive(protocol, START)
    protocol.take_output()

    events = receive(protocol, commands.Connection.Close(403, "ACCESS_REFUSED", 0, 0))

    assert events == [Closed(403, "ACCESS_REFUSED")]
    assert [method.name for _, method in sent(protocol)] == ["Connection.CloseOk"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"AMQP\x00\x01\x00\x00", "another version"), (b"HTTP/1.1 400 Bad Request\r\n", "not AMQP")],
)
def test_another_protocol_at_the_address_is_named_in_the_error(data: bytes, reason: str) -> None:
    (closed,) = starting().receive(data)

    assert isinstance(closed, Closed)
    assert reason in closed.reason


# --- channels and calls ---------------------------------------------------------------------------------------


def test_call_is_answered_on_its_channel() -> None:
    protocol = opened(channels=2)
    protocol.call(2, commands.Queue.Declare(queue="rooms.1", durable=True))
    protocol.call(2, commands.Basic.Qos(prefetch_count=5))

    assert [(channel, method.name) for channel, method in sent(protocol)] == [(2, "Queue.Declare"), (2, "Basic.Qos")]
    (declared,) = receive(protocol, commands.Queue.DeclareOk("rooms.1", 7, 1), 2)
    assert isinstance(declared, Replied)
    assert (declared.channel, declared.method.message_count) == (2, 7)
    assert [type(event) for event in receive(protocol, commands.Basic.QosOk(), 2)] == [Replied]


def test_unexpected_answer_closes_the_connection() -> None:
    protocol = opened(channels=1)

    (closed,) = receive(protocol, commands.Queue.BindOk(), 1)

    assert closed == Closed(503, "Queue.BindOk was not expected")
    assert closing(protocol) == (503, "Queue.BindOk was not expected")


def test_channel_numbers_are_used_again_after_closing() -> None:
    protocol = opened(channels=2, channel_max=2)
    with pytest.raises(RuntimeError, match="all 2 channels"):
        protocol.open_channel()

    protocol.call(1, commands.Channel.Close(200, "", 0, 0))
    with pytest.raises(RuntimeError, match="channel 1 is not open"):
        protocol.call(1, commands.Basic.Qos(prefetch_count=1))
    receive(protocol, commands.Channel.CloseOk(), 1)

    assert protocol.open_channel() == 1


def test_channel_closed_by_the_server_is_reported_and_answered() -> None:
    protocol = opened(channels=1)

    events = receive(protocol, commands.Channel.Close(404, "NOT_FOUND - no queue", 50, 10), 1)

    assert events == [ChannelClosed(1, 404, "NOT_FOUND - no queue")]
    assert [(channel, method.name) for channel, method in sent(protocol)] == [(1, "Channel.CloseOk")]
    assert protocol.open_channel() == 1


def test_channel_closed_by_both_sides_at_once_leaves_the_connection_open() -> None:
    protocol = opened(channels=1)
    protocol.call(1, commands.Channel.Close(200, "", 0, 0))
    assert receive(protocol, commands.Channel.Close(404, "", 0, 0), 1) == [ChannelClosed(1, 404, "")]
    assert protocol.open_channel() == 1

    assert receive(protocol, commands.Channel.CloseOk(), 1) == []
    assert [type(event) for event in receive(protocol, commands.Channel.OpenOk(), 1)] == [Replied]


def test_messages_of_a_closing_channel_are_dropped() -> None:
    protocol = opened(channels=1)
    protocol.call(1, commands.Basic.Consume(queue="rooms.0"))
    protocol.call(1, commands.Channel.Close(200, "", 0, 0))

    data = frame.marshal(commands.Basic.ConsumeOk("ctag"), 1) + delivery(1, 1, False, b"late")
    events = protocol.receive(data + frame.marshal(commands.Channel.CloseOk(), 1))

    assert [type(event) for event in events] == [Replied, Replied]


def test_cancelled_consumer_is_reported() -> None:
    protocol = opened(channels=1)

    assert receive(protocol, commands.Basic.Cancel("ctag", nowait=True), 1) == [ConsumerCancelled(1)]
    assert sent(protocol) == []


def test_blocked_and_unblocked_connection_is_reported() -> None:
    protocol = opened()

    assert receive(protocol, commands.Connection.Blocked("low on memory")) == [Blocked("low on memory")]
    assert receive(protocol, commands.Connection.Unblocked()) == [Blocked(None)]


def test_closing_waits_for_the_servers_answer() -> None:
    protocol = opened(channels=1)
    protocol.close()
    assert closing(protocol)[0] == 200

    assert protocol.receive(delivery(1, 1, False, b"late")) == []
    assert receive(protocol, commands.Connection.CloseOk()) == [Closed(0, "closed by this process")]
    assert protocol.receive(b"anything") == []


# --- messages and confirms ------------------------------------------------------------------------------------


def content(channel: int, method: Any, body: bytes, message_id: str = "") -> bytes:
    properties = commands.Basic.Properties(delivery_mode=1, expiration="3000", message_id=message_id or None)
    parts = [ContentBody(body[at : at + PART]) for at in range(0, len(body), PART)]
    all_frames = [method, ContentHeader(body_size=len(body), properties=properties), *parts]
    return b"".join(frame.marshal(it, channel) for it in all_frames)


def delivery(channel: int, tag: int, redelivered: bool, body: bytes) -> bytes:
    return content(channel, commands.Basic.Deliver("ctag1.é", tag, redelivered, "rooms", "7"), body)


def returning(channel: int, message_id: str) -> bytes:
    return content(channel, commands.Basic.Return(312, "NO_ROUTE", "notify", "gw1.5"), b"lost", message_id)


CHANNELS = st.integers(1, 2)
TAGS = st.integers(1, 2**63 - 1)
BODIES = st.binary(max_size=3 * PART)
MESSAGES: st.SearchStrategy[tuple[bytes, Event | None]] = st.one_of(
    st.builds(lambda *it: (delivery(*it), Delivered(*it)), CHANNELS, TAGS, st.booleans(), BODIES),
    st.builds(
        lambda channel, tag, multiple: (
            frame.marshal(commands.Basic.Ack(tag, multiple), channel),
            Confirmed(channel, tag, multiple, False),
        ),
        CHANNELS,
        TAGS,
        st.booleans(),
    ),
    st.builds(
        lambda channel, tag, multiple: (
            frame.marshal(commands.Basic.Nack(tag, multiple), channel),
            Confirmed(channel, tag, multiple, True),
        ),
        CHANNELS,
        TAGS,
        st.booleans(),
    ),
    st.builds(
        lambda channel, n: (returning(channel, str(n)), Returned(channel, str(n), "notify gw1.5: NO_ROUTE")),
        CHANNELS,
        TAGS,
    ),
    st.just((ALIVE, None)),
    st.just((frame.marshal(commands.Basic.Cancel("ctag", nowait=True), 2), ConsumerCancelled(2))),
    st.just((frame.marshal(commands.Connection.Blocked("memory"), 0), Blocked("memory"))),
)


def chunks(whole: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)) | {0, len(whole)})
    return [whole[start:end] for start, end in pairwise(cuts)]


@given(st.lists(MESSAGES, max_size=12), st.data())
def test_events_are_the_same_however_the_bytes_are_split(
    messages: list[tuple[bytes, Event | None]], data: st.DataObject
) -> None:
    protocol = opened(channels=2)
    events = [
        event
        for chunk in chunks(b"".join(encoded for encoded, _ in messages), data)
        for event in protocol.receive(chunk)
    ]

    assert events == [event for _, event in messages if event is not None]
    assert protocol.is_open


@given(st.lists(MESSAGES, max_size=4), st.binary(min_size=1, max_size=200), st.data())
def test_junk_among_the_bytes_only_ever_closes_the_connection(
    messages: list[tuple[bytes, Event | None]], junk: bytes, data: st.DataObject
) -> None:
    protocol = opened(channels=2)
    whole = b"".join(encoded for encoded, _ in messages)
    at = data.draw(st.integers(0, len(whole)))
    events = [e for chunk in chunks(whole[:at] + junk + whole[at:], data) for e in protocol.receive(chunk)]

    closed = [event for event in events if isinstance(event, Closed)]
    assert closed == events[-1:] if closed else protocol.is_open
    if closed:
        assert protocol.receive(whole) == []


@given(st.binary(max_size=300))
def test_junk_during_the_handshake_raises_nothing(junk: bytes) -> None:
    for so_far in ([], [START], [START, commands.Connection.Tune(0, 0, 0)]):
        protocol = starting()
        for method in so_far:
            receive(protocol, method)
        events = protocol.receive(junk)
        assert [type(event) for event in events] in ([], [Closed])


def header(size: int) -> bytes:
    return frame.marshal(ContentHeader(body_size=size, properties=commands.Basic.Properties()), 1)


DELIVER = frame.marshal(commands.Basic.Deliver("ctag", 1, False, "rooms", "7"), 1)
BODY = frame.marshal(ContentBody(b"0123456789"), 1)


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"\x01\x00\x01\x00\x02\x00\x00", 501, "longer than the 131072 bytes"),
        (b"\x05\x00\x01\x00\x00\x00\x04", 501, "not AMQP"),
        (DELIVER[:-1] + b"\x00", 501, "does not end"),
        (ALIVE[:1] + b"\x00\x01" + ALIVE[3:], 501, "a heartbeat has a channel"),
        (DELIVER + DELIVER, 505, "before the end of a content"),
        (DELIVER + frame.marshal(commands.Basic.Ack(1), 1), 505, "before the end of a content"),
        (header(10), 505, "without its method"),
        (DELIVER + BODY, 505, "without its content header"),
        (DELIVER + header(9) + BODY, 501, "longer than its content header"),
        (DELIVER + header(1001), 501, "more than 1000"),
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x63\x00\x63\xce", 502, "cannot be read"),
        (b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x50\x01\xce", 502, "size"),
        (frame.marshal(commands.Basic.Qos(), 9), 504, "channel 9"),
        (frame.marshal(ContentBody(b"x"), 9), 504, "channel 9"),
        (frame.marshal(commands.Connection.OpenOk(), 0), 503, "Connection.OpenOk was not expected"),
    ],
)
def test_malformed_frame_closes_the_connection_with_a_reason(data: bytes, code: int, reason: str) -> None:
    protocol = opened(channels=1, content_max=1000)

    *_, closed = protocol.receive(data + ALIVE)

    assert isinstance(closed, Closed)
    assert closed.code == code
    assert reason in closed.reason
    assert closing(protocol) == (closed.code, closed.reason[:200])


def test_frame_of_the_agreed_size_is_accepted_and_a_longer_one_is_not() -> None:
    protocol = opened(channels=1, tune=(0, 4096, 0))
    body = frame.marshal(ContentBody(b"x" * 4088), 1)
    assert protocol.receive(DELIVER + header(4088) + body) == [Delivered(1, 1, False, b"x" * 4088)]

    (closed,) = protocol.receive(DELIVER + header(4089) + frame.marshal(ContentBody(b"x" * 4089), 1))
    assert isinstance(closed, Closed)
    assert "longer than the 4096 bytes" in closed.reason


def test_returned_message_has_the_id_that_it_was_published_with() -> None:
    published = frames.publish(1, "notify", "gw1.5", b"x", mandatory_id="41", ttl=3, frame_max=4096)
    _, (_, sent_header), *_ = decoded(published)
    protocol = opened(channels=1)

    data = frame.marshal(commands.Basic.Return(312, "NO_ROUTE", "notify", "gw1.5"), 1)
    data += frame.marshal(sent_header, 1) + frame.marshal(ContentBody(b"x"), 1)

    assert protocol.receive(data) == [Returned(1, "41", "notify gw1.5: NO_ROUTE")]
