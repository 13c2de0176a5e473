"""The client against the other end of its protocols: STUN of aioice, DTLS of OpenSSL as a server."""

import time

import pytest
from aioice import stun

from medianode.toolchain.webrtc_client import SRTP_PROFILES, ConnectionFailed, WebRtcClient, fingerprint_of
from tests.support.webrtc_transport import PASSWORD, USERNAME, Transport, binding_response


def client_of(transport: Transport, fingerprint: str = "") -> WebRtcClient:
    return WebRtcClient(USERNAME, PASSWORD, fingerprint or transport.fingerprint)


def connect(client: WebRtcClient, transport: Transport) -> None:
    """Passes packets both ways until there are none."""
    while packets := client.take_outgoing():
        for packet in packets:
            for answer in transport.answer(packet):
                client.receive(answer)


@pytest.mark.parametrize("profile", SRTP_PROFILES)
def test_client_connects_and_both_ends_have_the_same_keys(profile: str) -> None:
    transport = Transport(profile)
    client = client_of(transport)
    assert not client.connected
    connect(client, transport)
    assert client.connected
    ours, theirs = client.srtp_keys(), transport.keys()
    assert (ours.profile, ours.sending, ours.receiving) == (profile, theirs.receiving, theirs.sending)
    peer = transport.dtls.get_peer_certificate(as_cryptography=True)
    assert peer
    assert fingerprint_of(peer) == client.fingerprint


def test_binding_request_nominates_the_candidate() -> None:
    transport = Transport()
    connect(client_of(transport), transport)
    [request] = transport.binding_requests
    assert request.attributes["USERNAME"].startswith(f"{USERNAME}:")
    assert {"USE-CANDIDATE", "ICE-CONTROLLING", "PRIORITY"} <= set(request.attributes)


def test_handshake_starts_after_the_binding_response() -> None:
    transport = Transport()
    client = client_of(transport)
    [request] = client.take_outgoing()
    assert client.take_outgoing() == []
    client.receive(transport.answer(request)[0])
    assert client.take_outgoing()[0][0] == 22, "a DTLS handshake record"


def test_lost_binding_request_is_sent_again() -> None:
    transport = Transport()
    client = client_of(transport)
    client.take_outgoing()
    assert client.wait_seconds > 0
    client.retransmit()
    connect(client, transport)
    assert client.connected


def test_lost_handshake_packets_are_sent_again() -> None:
    transport = Transport()
    client = client_of(transport)
    client.receive(transport.answer(client.take_outgoing()[0])[0])
    lost = client.take_outgoing()
    while not (again := client.take_outgoing()):
        time.sleep(client.wait_seconds)  # OpenSSL has no other clock
        client.retransmit()
    assert len(again) == len(lost)


def test_binding_request_can_be_sent_after_the_connection() -> None:
    transport = Transport()
    client = client_of(transport)
    connect(client, transport)
    client.send_binding_request()
    connect(client, transport)
    assert len(transport.binding_requests) == 2
    assert client.connected


def test_other_fingerprint_than_expected_is_refused() -> None:
    transport = Transport()
    client = client_of(transport, fingerprint="00:11")
    with pytest.raises(ConnectionFailed, match=f"fingerprint {transport.fingerprint}, not 00:11"):
        connect(client, transport)
    assert not client.connected


def test_refused_binding_request_is_told() -> None:
    client = client_of(Transport())
    request = stun.parse_message(client.take_outgoing()[0])
    with pytest.raises(ConnectionFailed, match=r"refused: .*401"):
        client.receive(binding_response(request, stun.Class.ERROR))


def test_binding_response_that_is_not_authentic_is_refused() -> None:
    client = client_of(Transport())
    request = stun.parse_message(client.take_outgoing()[0])
    with pytest.raises(ConnectionFailed, match="not authentic"):
        client.receive(binding_response(request, password="another"))


def test_invalid_stun_packet_is_refused() -> None:
    with pytest.raises(ConnectionFailed, match="STUN request is invalid"):
        client_of(Transport()).receive(b"\1\1")


def test_handshake_that_the_server_refuses_is_told() -> None:
    transport = Transport()
    client = client_of(transport)
    client.receive(transport.answer(client.take_outgoing()[0])[0])
    fatal_alert = b"\x15\xfe\xfd" + bytes(8) + b"\0\2" + b"\2\x28"
    with pytest.raises(ConnectionFailed, match="DTLS handshake failed"):
        client.receive(fatal_alert)


def test_close_by_the_server_is_told() -> None:
    transport = Transport()
    client = client_of(transport)
    connect(client, transport)
    transport.dtls.shutdown()
    with pytest.raises(ConnectionFailed, match="closed"):
        client.receive(transport.dtls.bio_read(65_536))


@pytest.mark.parametrize("packet", [b"", b"\x80media", b"\x40"])
def test_packets_of_other_protocols_are_ignored(packet: bytes) -> None:
    client = client_of(Transport())
    client.take_outgoing()
    client.receive(packet)
    assert client.take_outgoing() == []


def test_keys_before_the_connection_are_an_error() -> None:
    with pytest.raises(ConnectionFailed, match="no SRTP profile"):
        client_of(Transport()).srtp_keys()
