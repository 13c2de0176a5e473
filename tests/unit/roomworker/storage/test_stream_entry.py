"""An entry of a room's stream has the messages of a commit."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomworker.storage.stream_entry import LONG, Entry, SentMessage, decode_entry, encode_entry

BODIES = st.binary(max_size=LONG - 1) | st.binary(min_size=LONG, max_size=4 * LONG)
RECIPIENTS = st.lists(st.tuples(st.text(max_size=30), st.integers(0, 2**53)), max_size=5)
MESSAGES = st.lists(st.builds(SentMessage, BODIES, RECIPIENTS, st.sampled_from([0, 4000, 4001])), max_size=4)

NEW_CONSUMER = (
    b'{"notification":true,"method":"mediasoup-notification","data":{"method":"newConsumer","target":"peer",'
    b'"notification":true,"id":6,"kind":"video","peerName":"bob","rtpParameters":{"codecs":[{"name":"VP8",'
    b'"payloadType":101,"clockRate":90000,"mimeType":"video/VP8","parameters":{},"rtcpFeedback":[{"type":"nack"},'
    b'{"type":"nack","parameter":"pli"},{"type":"ccm","parameter":"fir"},{"type":"goog-remb"}]}],"headerExtensions":'
    b'[{"uri":"http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time","id":4}],"encodings":[{"ssrc":268435648}],'
    b'"rtcp":{"cname":"efc0c452b07af75e","reducedSize":true,"mux":true}},"paused":false,"preferredProfile":"default",'
    b'"effectiveProfile":null}}'
)

KEPT = (
    "783f520006ce9b3471f251a659039c23ccf0e588a4fc2450a88ca04c3150e9d3c8ccc2c4d8d4ccc4025bca4c4d4b36483631354a3230"
    "4f4c3337052576daa7d4dada8993161633324c000079d1e85c"
)


@given(MESSAGES)
def test_decoded_entry_equals_the_encoded_one(messages: list[SentMessage]) -> None:
    entry = Entry(messages, [])
    assert decode_entry(encode_entry(entry)) == entry


def test_uncompressed_entry_can_be_read() -> None:
    entry = Entry([SentMessage(NEW_CONSUMER, [("s", 1)])], [])
    assert decode_entry(msgspec.msgpack.encode(entry)) == entry


def test_similar_messages_compress_to_less_than_one_of_them() -> None:
    told = [SentMessage(NEW_CONSUMER.replace(b'"id":6', b'"id":%d' % n), [(f"s{n}", n)]) for n in (6, 7, 8)]
    assert 3 * len(encode_entry(Entry(told, []))) < len(NEW_CONSUMER)


def test_short_message_is_not_compressed() -> None:
    entry = Entry([SentMessage(b'{"notification":true}', [("s", 1)])], [])
    assert encode_entry(entry) == msgspec.msgpack.encode(entry)


def test_dictionary_is_the_one_that_streams_were_written_with() -> None:
    """`zlib_dictionary.txt` must not change: this was written with it."""
    kept = bytes.fromhex(KEPT)
    assert decode_entry(kept) == Entry([SentMessage(NEW_CONSUMER, [("s", 1)])], [])
    with pytest.raises(msgspec.MsgspecError):
        decode_entry(b"\xc1")
