"""The frames that are encoded by hand, read back by pamqp."""

from typing import Any

import pytest
from pamqp import commands
from pamqp.header import ContentHeader

from shared.broker.amqp import frames
from tests.support.amqp_frames import decoded


def published(body: bytes, *, mandatory_id: str = "", ttl: float | None = None) -> list[tuple[int, Any]]:
    return decoded(frames.publish(7, "notify", "gw1.é", body, mandatory_id=mandatory_id, ttl=ttl, frame_max=4096))


def test_message_is_transient_and_has_no_other_property() -> None:
    (channel, method), (_, header), (_, content) = published(b"hello")

    assert channel == 7
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key) == ("notify", "gw1.é")
    assert (method.mandatory, method.immediate) == (False, False)
    assert isinstance(header, ContentHeader)
    assert header.body_size == 5
    assert {name: value for name, value in header.properties if value} == {"delivery_mode": 1}
    assert content.value == b"hello"


def test_mandatory_message_has_its_id_and_a_ttl_in_milliseconds() -> None:
    (_, method), (_, header) = published(b"", mandatory_id="41", ttl=1.5)

    assert method.mandatory is True
    assert header.properties.message_id == "41"
    assert header.properties.expiration == "1500"


@pytest.mark.parametrize(("size", "parts"), [(0, 0), (4088, 1), (4089, 2), (10_000, 3)])
def test_long_body_is_split_at_the_frame_limit(size: int, parts: int) -> None:
    body = bytes(number % 251 for number in range(size))

    encoded = published(body)

    assert encoded[1][1].body_size == size
    assert len(encoded) == 2 + parts
    assert b"".join(content.value for _, content in encoded[2:]) == body


def test_routing_key_of_more_than_255_bytes_is_rejected() -> None:
    with pytest.raises(ValueError, match="255"):
        frames.publish(1, "rooms", "x" * 256, b"", frame_max=4096)


def test_ack_names_its_tag_and_whether_it_is_multiple() -> None:
    ((channel, ack),) = decoded(frames.ack(3, 2**40, multiple=True))

    assert isinstance(ack, commands.Basic.Ack)
    assert (channel, ack.delivery_tag, ack.multiple) == (3, 2**40, True)
