"""The server's end of a WebRTC transport, without I/O: STUN of aioice, DTLS of OpenSSL."""

from contextlib import suppress

from aioice import stun
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from medianode.toolchain.webrtc_client import (
    KEY_LENGTHS,
    SRTP_PROFILES,
    SrtpKeys,
    fingerprint_of,
    self_signed_certificate,
)

USERNAME = "fragment"
PASSWORD = "password of the transport"


class Transport:
    """The server's end of a transport, which answers packets with packets."""

    def __init__(self, profile: str = SRTP_PROFILES[0]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self_signed_certificate(key)
        self.fingerprint = fingerprint_of(certificate)
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.set_tlsext_use_srtp(profile.encode())
        self.dtls = SSL.Connection(context)
        self.dtls.set_accept_state()
        self.binding_requests: list[stun.Message] = []

    def answer(self, packet: bytes) -> list[bytes]:
        if packet[0] > 3:
            self.dtls.bio_write(packet)
            with suppress(SSL.WantReadError):
                self.dtls.do_handshake()
            try:
                return [self.dtls.bio_read(65_536)]
            except SSL.WantReadError:
                return []
        request = stun.parse_message(packet)
        assert request.check_message_integrity(PASSWORD.encode())
        self.binding_requests.append(request)
        return [binding_response(request)]

    def keys(self) -> SrtpKeys:
        """The same keys from this end: what the client sends with is what this end receives with."""
        profile = self.dtls.get_selected_srtp_profile().decode()
        key, salt = KEY_LENGTHS[profile]
        material = self.dtls.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt))
        client_key, server_key, salts = material[:key], material[key : 2 * key], material[2 * key :]
        return SrtpKeys(profile, sending=server_key + salts[salt:], receiving=client_key + salts[:salt])


def binding_response(
    request: stun.Message, kind: stun.Class = stun.Class.RESPONSE, password: str = PASSWORD
) -> bytes:
    response = stun.Message(stun.Method.BINDING, kind, transaction_id=request.transaction_id)
    if kind == stun.Class.ERROR:
        response.attributes["ERROR-CODE"] = (401, "unauthorized")
    response.attributes["XOR-MAPPED-ADDRESS"] = ("127.0.0.1", 40000)
    response.add_message_integrity(password.encode())
    return bytes(response)
