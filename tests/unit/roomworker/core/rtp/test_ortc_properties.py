"""Negotiation: properties that hold for all producers and receivers of the room's capabilities, and for everything
that the decoder accepts.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from roomworker.core.rtp import codecs, ortc
from roomworker.core.rtp.codecs import DEFAULT_ROOM_CAPABILITIES as ROOM
from shared.errors import BadPayload
from shared.protocol.rtp import Kind, RtpCapabilities, RtpParameters

Json = dict[str, Any]

# The functions are pure, so a slow example means only that the machine is busy.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def mapped(sent: RtpParameters, kind: Kind) -> dict[int, int]:
    entries = ortc.producer_mapping(sent, kind, ROOM)
    return {entry.payload_type: entry.mapped_payload_type for entry in entries}


def received(sent: RtpParameters, kind: Kind, caps: RtpCapabilities) -> RtpParameters:
    offered = ortc.consumable(sent, kind, ROOM, ortc.producer_mapping(sent, kind, ROOM))
    return ortc.consumer_parameters(offered, caps, ssrc=71, rtx_ssrc=72)


# --- properties of accepted parameters ----------------------------------------------------------------------

KINDS: st.SearchStrategy[Kind] = st.sampled_from(["audio", "video"])


@st.composite
def valid_parameters(draw: st.DrawFn, kind: Kind) -> RtpParameters:
    """Some of the room's codecs in any order and with any payload types, its extensions with any ids."""
    media = [codec for codec in ROOM.codecs if codec.kind == kind and codec.name != "rtx"]
    chosen = draw(st.lists(st.sampled_from(media), min_size=1, unique_by=lambda codec: codec.name))
    numbers = iter(draw(st.lists(st.integers(0, 127), min_size=8, max_size=8, unique=True)))
    sent: list[Json] = []
    for codec in chosen:
        entry = msgspec.to_builtins(codec) | {"payloadType": next(numbers)}
        sent.append(entry)
        if kind == "video" and draw(st.booleans()):
            sent.append({"name": "rtx", "payloadType": next(numbers), "clockRate": 90000})
            sent[-1]["parameters"] = {"apt": entry["payloadType"]}
    sent = draw(st.permutations(sent))
    first = next(entry["name"] for entry in sent if entry["name"] != "rtx")
    uris = sorted({extension.uri for extension in ROOM.header_extensions if extension.kind == kind})
    extensions = draw(st.lists(st.sampled_from(uris), unique=True))
    ids = draw(st.lists(st.integers(1, 255), min_size=4, max_size=4, unique=True))
    return msgspec.convert(
        {
            "codecs": sent,
            "headerExtensions": [{"uri": uri, "id": ids[i]} for i, uri in enumerate(extensions)],
            "encodings": draw(valid_encodings(layers=3 if first in ("VP8", "H264") else 1)),
            "rtcp": draw(st.sampled_from([{}, {"cname": None}, {"cname": "abc"}])),
        },
        RtpParameters,
    )


@st.composite
def valid_encodings(draw: st.DrawFn, layers: int) -> list[Json]:
    names = draw(st.lists(st.sampled_from(["low", "medium", "high"]), min_size=1, max_size=layers, unique=True))
    numbers = draw(st.lists(st.integers(1, 2**32 - 1), min_size=6, max_size=6, unique=True))
    encodings: list[Json] = []
    for i, name in enumerate(names):
        identity: Json = draw(st.sampled_from([{"ssrc": numbers[i]}, {"encodingId": f"{name}1"}]))
        rtx: Json = draw(st.sampled_from([{}, {"rtx": None}, {"rtx": {"ssrc": numbers[3 + i]}}]))
        encodings.append({**identity, **rtx, "profile": name})
    return encodings


@st.composite
def subsets(draw: st.DrawFn) -> RtpCapabilities:
    """Capabilities that may join: some of the room's, in any order, with less feedback."""
    chosen = draw(st.lists(st.sampled_from(ROOM.codecs), unique_by=lambda codec: codec.preferred_payload_type))
    less = [
        msgspec.structs.replace(codec, rtcp_feedback=[fb for fb in codec.rtcp_feedback if draw(st.booleans())])
        for codec in chosen
    ]
    extensions = draw(st.permutations(ROOM.header_extensions))
    return RtpCapabilities(codecs=less, header_extensions=[ext for ext in extensions if draw(st.booleans())])


@unhurried
@given(data=st.data(), kind=KINDS)
def test_accepted_codec_is_mapped_to_the_rooms_codec_of_that_name(data: st.DataObject, kind: Kind) -> None:
    sent = data.draw(valid_parameters(kind))
    mapping = mapped(sent, kind)
    room = {codec.preferred_payload_type: codec for codec in ROOM.codecs}
    assert mapping.keys() == {codec.payload_type for codec in sent.codecs}
    for codec in sent.codecs:
        target = room[mapping[codec.payload_type]]
        assert (target.name, target.kind) == (codec.name, kind)
        if codec.is_rtx:
            assert target.parameters["apt"] == mapping[codec.parameters["apt"]]


@unhurried
@given(data=st.data(), kind=KINDS)
def test_codec_order_does_not_change_the_mapping(data: st.DataObject, kind: Kind) -> None:
    sent = data.draw(valid_parameters(kind))
    assume(len(sent.encodings) == 1)
    shuffled = msgspec.structs.replace(sent, codecs=data.draw(st.permutations(sent.codecs)))
    assert mapped(shuffled, kind) == mapped(sent, kind)


@unhurried
@given(data=st.data(), kind=KINDS)
def test_sort_encodings_keeps_every_encoding_and_is_idempotent(data: st.DataObject, kind: Kind) -> None:
    sent = data.draw(valid_parameters(kind))
    result = ortc.sort_encodings(sent)
    assert ortc.sort_encodings(result) == result
    assert sorted(map(repr, result.encodings)) == sorted(map(repr, sent.encodings))
    assert ortc.profiles(sent) == ortc.profiles(result)
    if ortc.is_simulcast(sent):
        assert ortc.profiles(result) == [encoding.profile for encoding in result.encodings]
    assert mapped(result, kind) == mapped(sent, kind)


@unhurried
@given(data=st.data(), kind=KINDS, caps=subsets())
def test_receiver_gets_nothing_that_it_did_not_offer(data: st.DataObject, kind: Kind, caps: RtpCapabilities) -> None:
    ortc.assert_subset(caps, ROOM)
    result = received(data.draw(valid_parameters(kind)), kind, caps)
    known = {codec.preferred_payload_type: codec for codec in caps.codecs}
    media = {codec.payload_type for codec in result.codecs if not codec.is_rtx}
    for codec in result.codecs:
        mine = known[codec.payload_type]
        assert (codec.name, mine.kind) == (mine.name, kind)
        assert all(feedback in mine.rtcp_feedback for feedback in codec.rtcp_feedback)
        assert not codec.is_rtx or codec.parameters["apt"] in media
    extensions = {(extension.uri, extension.preferred_id) for extension in caps.header_extensions}
    assert {(extension.uri, extension.id) for extension in result.header_extensions} <= extensions
    assert not {extension.uri for extension in result.header_extensions} & {codecs.MID, codecs.RTP_STREAM_ID}
    assert bool(result.encodings[0].rtx) == any(codec.is_rtx for codec in result.codecs)
    assert ortc.can_consume(result) == bool(media)
    assert result.rtcp.cname
    assert result.mux_id is UNSET


@unhurried
@given(data=st.data(), kind=KINDS, caps=subsets())
def test_receivers_with_equal_keys_get_equal_parameters(
    data: st.DataObject, kind: Kind, caps: RtpCapabilities
) -> None:
    same = RtpCapabilities(
        codecs=data.draw(st.permutations(caps.codecs)),
        header_extensions=data.draw(st.permutations(caps.header_extensions)),
        fec_mechanisms=["ignored"],
    )
    sent = data.draw(valid_parameters(kind))
    assert ortc.capability_key(same) == ortc.capability_key(caps)
    assert received(sent, kind, same) == received(sent, kind, caps)


@unhurried
@given(data=st.data(), one=subsets(), other=subsets(), kind=KINDS)
def test_receivers_with_different_parameters_have_different_keys(
    data: st.DataObject, one: RtpCapabilities, other: RtpCapabilities, kind: Kind
) -> None:
    sent = data.draw(valid_parameters(kind))
    if received(sent, kind, one) != received(sent, kind, other):
        assert ortc.capability_key(one) != ortc.capability_key(other)


# --- anything that can be decoded ---------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 200) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
small = st.integers(0, 5) | st.integers(94, 107)
odd_values = st.sampled_from([None, True, 96.0, "96", [96], {"a": 1}, 2**70])
kinds = st.sampled_from(["audio", "video"])
names = st.sampled_from(["opus", "VP8", "vp8", "H264", "VP9", "rtx", "RTX", "VP7", ""])
uris = st.sampled_from([extension.uri for extension in ROOM.header_extensions] + [codecs.MID, ""])
feedbacks = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["nack", "ccm", "x"])}, optional={"parameter": st.sampled_from([None, "", "pli"])}
    ),
    max_size=3,
)
codec_fields: Json = {
    "name": names,
    "clockRate": st.sampled_from([48000, 90000, 8000]),
}
codec_options: Json = {
    "mimeType": st.sampled_from(["audio/opus", "video/VP8", "video/rtx", "", "x"]),
    "channels": st.sampled_from([None, 1, 2]),
    "parameters": st.dictionaries(
        st.sampled_from(["apt", "packetization-mode", "x"]), small | odd_values, max_size=3
    ),
    "rtcpFeedback": feedbacks,
}
arbitrary_capabilities = st.fixed_dictionaries(
    {
        "codecs": st.lists(
            st.fixed_dictionaries(
                codec_fields | {"kind": kinds, "preferredPayloadType": small}, optional=codec_options
            ),
            max_size=5,
        )
    },
    optional={
        "headerExtensions": st.lists(
            st.fixed_dictionaries(
                {"uri": uris, "preferredId": st.integers(1, 12)}, optional={"kind": kinds | st.none()}
            ),
            max_size=4,
        ),
        "fecMechanisms": st.lists(odd_values, max_size=2),
    },
)
arbitrary_parameters = st.fixed_dictionaries(
    {
        "codecs": st.lists(
            st.fixed_dictionaries(codec_fields | {"payloadType": small}, optional=codec_options),
            min_size=1,
            max_size=5,
        )
    },
    optional={
        "muxId": st.none() | st.text(max_size=3),
        "headerExtensions": st.lists(st.fixed_dictionaries({"uri": uris, "id": st.integers(1, 12)}), max_size=4),
        "encodings": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "ssrc": small,
                    "rtx": st.none() | st.fixed_dictionaries({"ssrc": small}),
                    "encodingId": st.none() | st.text(max_size=2),
                    "profile": st.sampled_from([None, "default", "low", "medium", "high"]),
                },
            ),
            max_size=5,
        ),
        "rtcp": st.fixed_dictionaries({}, optional={"cname": st.none() | st.text(max_size=4)}),
    },
)


def refusing(call: Callable[..., object], *arguments: object) -> None:
    """Calls the function. BadPayload is the only exception allowed, and its reason must name a field."""
    refusal = None
    try:
        call(*arguments)
    except BadPayload as raised:
        refusal = raised.reason
    assert refusal is None or refusal.startswith(("rtpParameters.", "rtpCapabilities."))


@unhurried
@given(sent=arbitrary_parameters, caps=arbitrary_capabilities, room=arbitrary_capabilities, kind=KINDS)
def test_decodable_parameters_are_accepted_or_rejected_naming_a_field(
    sent: Json, caps: Json, room: Json, kind: Kind
) -> None:
    params = msgspec.convert(sent, RtpParameters)
    peer_caps, room_caps = (msgspec.convert(data, RtpCapabilities) for data in (caps, room))
    refusing(ortc.assert_subset, peer_caps, ROOM)
    refusing(ortc.assert_subset, peer_caps, room_caps)
    refusing(ortc.producer_mapping, params, kind, ROOM)
    refusing(ortc.producer_mapping, params, kind, room_caps)
    refusing(ortc.consumable, params, kind, room_caps, [])
    assert len(ortc.profiles(params)) == max(1, len(params.encodings))
    assert len(ortc.sort_encodings(params).encodings) == len(params.encodings)
    result = ortc.consumer_parameters(params, peer_caps, 1, 2)
    assert ortc.capability_key(peer_caps)
    assert not ortc.can_consume(result) or result.codecs
    with contextlib.suppress(BadPayload):
        mapping = ortc.producer_mapping(params, kind, room_caps)
        ortc.consumer_parameters(ortc.consumable(params, kind, room_caps, mapping), peer_caps, 1, 2)


@unhurried
@given(data=json_values, kind=KINDS)
def test_random_json_is_rejected_by_the_decoder_or_naming_a_field(data: object, kind: Kind) -> None:
    with contextlib.suppress(msgspec.ValidationError):
        refusing(ortc.producer_mapping, msgspec.convert(data, RtpParameters), kind, ROOM)
    with contextlib.suppress(msgspec.ValidationError):
        refusing(ortc.assert_subset, msgspec.convert(data, RtpCapabilities), ROOM)
