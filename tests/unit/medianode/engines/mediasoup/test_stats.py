"""Statistics in protocol v2's form, from what the engine reports."""

from typing import Any

from medianode.engines.mediasoup import stats
from shared.protocol import media
from shared.protocol.rtp import Encoding

ROUTER = media.RouterRef("router", 0, "room", "incarnation", 1)

TRANSPORT = {
    "transportId": "engine id",
    "type": "webrtc-transport",
    "timestamp": 1000,
    "iceRole": "controlled",
    "iceState": "completed",
    "dtlsState": "connected",
    "bytesReceived": 5,
    "bytesSent": 6,
    "recvBitrate": 7,
    "maxIncomingBitrate": 500_000,
    "availableOutgoingBitrate": 600_000,
    "iceSelectedTuple": {
        "localIp": "1.2.3.4",
        "localPort": 5,
        "remoteIp": "6.7.8.9",
        "remotePort": 10,
        "protocol": "udp",
    },
}
COUNTED = {
    "timestamp": 1000,
    "mimeType": "video/VP8",
    "packetCount": 1,
    "byteCount": 2,
    "bitrate": 3,
    "packetsLost": 4,
    "fractionLost": 5,
    "packetsDiscarded": 6,
    "packetsRepaired": 7,
    "firCount": 8,
    "pliCount": 9,
    "nackCount": 10,
}
UNKNOWN_TO_V2 = {"packetsRetransmitted": 1, "nackPacketCount": 2, "score": 10, "roundTripTime": 1.5}
INBOUND = {**COUNTED, **UNKNOWN_TO_V2, "kind": "video", "type": "inbound-rtp", "ssrc": 11, "rtxSsrc": 12, "jitter": 4}
OUTBOUND = {**COUNTED, **UNKNOWN_TO_V2, "kind": "video", "type": "outbound-rtp", "ssrc": 51, "rtxSsrc": 52}


def convert(kind: Any, *entries: dict[str, Any]) -> list[dict[str, Any]]:
    return stats.convert(media.GetStats(ROUTER, kind, "engine id", id=7, transport_id=8), entries).stats


def test_transport_reports_as_v2_does() -> None:
    (entry,) = convert("transport", TRANSPORT)
    assert entry == {
        "type": "transport",
        "timestamp": 1000,
        "id": 7,
        "bytesReceived": 5,
        "bytesSent": 6,
        "iceConnectionState": "completed",
        "dtlsState": "connected",
        "iceSelectedTuple": {
            "localIP": "1.2.3.4",
            "localPort": 5,
            "remoteIP": "6.7.8.9",
            "remotePort": 10,
            "protocol": "udp",
        },
        "localAvailableSendBw": {"maxBitrate": 500_000, "bitrate": 0, "ssrcs": []},
        "remoteAvailableSendBw": {"bitrate": 600_000, "ssrcs": []},
    }


def test_producer_reports_as_v2_does() -> None:
    (entry,) = convert("producer", INBOUND)
    assert entry == {
        **COUNTED,
        "id": "producer-7-inbound-rtp-11",
        "type": "inbound-rtp",
        "ssrc": 11,
        "rtxSsrc": 12,
        "mediaType": "video",
        "kind": "video",
        "jitter": 4,
        "sliCount": 0,
        "transportId": 8,
    }


def test_each_stream_has_its_own_id() -> None:
    low, high = convert("producer", INBOUND, {**INBOUND, "ssrc": 21})
    assert low["id"] != high["id"]


def test_consumer_reports_as_v2_does() -> None:
    inbound, outbound = convert("consumer", OUTBOUND, INBOUND)
    assert "transportId" not in inbound
    assert outbound == {
        **COUNTED,
        "id": "consumer-7-outbound-rtp-51",
        "type": "outbound-rtp",
        "ssrc": 51,
        "rtxSsrc": 52,
        "mediaType": "video",
        "kind": "video",
        "roundTripTime": 1,
        "sliCount": 0,
        "transportId": 8,
        "inboundRtpId": inbound["id"],
    }


def test_consumer_without_packets_has_no_inbound_stream() -> None:
    (outbound,) = convert("consumer", OUTBOUND)
    assert "inboundRtpId" not in outbound


def test_inbound_stream_may_be_replaced() -> None:
    sent = {**INBOUND, "ssrc": 21}
    by_rid = {**sent, "rid": "high"}
    assert stats.inbound_ssrc([OUTBOUND, INBOUND]) == 11
    assert stats.stream_of_encoding([INBOUND, sent], Encoding(ssrc=21)) == sent
    assert stats.stream_of_encoding([INBOUND, by_rid], Encoding(encoding_id="high")) == by_rid
    assert stats.stream_of_encoding([INBOUND], Encoding(ssrc=31)) is None
    assert stats.with_inbound([OUTBOUND, INBOUND], sent) == [OUTBOUND, sent]
    assert stats.with_inbound([OUTBOUND, INBOUND], None) == [OUTBOUND]
