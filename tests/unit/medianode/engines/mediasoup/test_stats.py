"""Statistics in protocol v2's form, from what the engine reports."""

from typing import Any

import pytest

from medianode.engines.mediasoup import stats
from medianode.engines.mediasoup.channel import ChannelError
from shared.protocol import media
from shared.protocol.rtp import Encoding

ROUTER = media.RouterRef("router", 0, "room", "incarnation", 1)

TRANSPORT = {
    "base": {
        "transport_id": "engine id",
        "timestamp": 1000,
        "bytes_received": 5,
        "bytes_sent": 6,
        "recv_bitrate": 7,
        "max_incoming_bitrate": 500_000,
        "available_outgoing_bitrate": 600_000,
    },
    "ice_role": "CONTROLLED",
    "ice_state": "COMPLETED",
    "dtls_state": "CONNECTED",
    "ice_selected_tuple": {
        "local_address": "1.2.3.4",
        "local_port": 5,
        "remote_ip": "6.7.8.9",
        "remote_port": 10,
        "protocol": "UDP",
    },
}
BASE = {
    "timestamp": 1000,
    "kind": "VIDEO",
    "mime_type": "video/VP8",
    "packets_lost": 4,
    "fraction_lost": 5,
    "jitter": 4,
    "packets_discarded": 6,
    "packets_retransmitted": 1,
    "packets_repaired": 7,
    "nack_count": 10,
    "nack_packet_count": 2,
    "pli_count": 9,
    "fir_count": 8,
    "rtx_packets_discarded": 0,
    "round_trip_time": 1.5,
    "score": 10,
}
COUNTS = {"packet_count": 1, "byte_count": 2, "bitrate": 3}
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


def received(ssrc: int = 11, **more: Any) -> dict[str, Any]:
    base = ("BaseStats", {**BASE, "ssrc": ssrc, "rtx_ssrc": 12, **more})
    return {"data": ("RecvStats", {"base": {"data": base}, **COUNTS, "bitrate_by_layer": []})}


def sent(ssrc: int = 51) -> dict[str, Any]:
    base = ("BaseStats", {**BASE, "ssrc": ssrc, "rtx_ssrc": 52})
    return {"data": ("SendStats", {"base": {"data": base}, **COUNTS})}


def request(kind: Any) -> media.GetStats:
    return media.GetStats(ROUTER, kind, "engine id", id=7, transport_id=8)


def producer(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    return stats.convert(request("producer"), {"stats": entries}).stats


def consumer(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    return stats.convert_consumer(request("consumer"), stats.streams({"stats": entries})).stats


def test_transport_reports_as_v2_does() -> None:
    (entry,) = stats.convert(request("transport"), TRANSPORT).stats
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
    (entry,) = producer(received())
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
    low, high = producer(received(), received(21))
    assert low["id"] != high["id"]


def test_consumer_reports_as_v2_does() -> None:
    inbound, outbound = consumer(sent(), received())
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
    (outbound,) = consumer(sent())
    assert "inboundRtpId" not in outbound


def test_transport_before_its_connection_has_no_tuple() -> None:
    answer = {**TRANSPORT, "ice_state": "NEW", "ice_selected_tuple": None}
    (entry,) = stats.convert(request("transport"), answer).stats
    assert entry["iceConnectionState"] == "new"
    assert "iceSelectedTuple" not in entry


def test_inbound_stream_may_be_replaced() -> None:
    outbound, first, second, by_rid = stats.streams(
        {"stats": [sent(), received(11), received(21), received(31, rid="high")]}
    )
    assert stats.inbound_ssrc([outbound, first]) == 11
    assert stats.inbound_ssrc([outbound]) is None
    assert stats.stream_of_encoding([first, second], Encoding(ssrc=21)) == second
    assert stats.stream_of_encoding([first, by_rid], Encoding(encoding_id="high")) == by_rid
    assert stats.stream_of_encoding([first], Encoding(ssrc=31)) is None
    assert stats.with_inbound([outbound, first], second) == [outbound, second]
    assert stats.with_inbound([outbound, first], None) == [outbound]


@pytest.mark.parametrize("entry", [{"data": ("BaseStats", {})}, {"data": ("RecvStats", {"base": sent()})}])
def test_statistics_nested_in_another_way_are_not_believed(entry: dict[str, Any]) -> None:
    with pytest.raises(ChannelError, match="no statistics"):
        stats.streams({"stats": [entry]})
