"""The client's end of a WebRTC transport, without I/O: a controlling ICE agent, and DTLS that gives the keys of SRTP.

It needs PyPI's `aioice` (STUN's messages) and `pyopenssl`, which Plenary itself does not need: a build installs them
beside meson, and the tests have them.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aioice import stun
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

SRTP_PROFILES = ("SRTP_AEAD_AES_256_GCM", "SRTP_AEAD_AES_128_GCM", "SRTP_AES128_CM_SHA1_80", "SRTP_AES128_CM_SHA1_32")
KEY_LENGTHS = {
    "SRTP_AEAD_AES_256_GCM": (32, 12),
    "SRTP_AEAD_AES_128_GCM": (16, 12),
    "SRTP_AES128_CM_SHA1_80": (16, 14),
    "SRTP_AES128_CM_SHA1_32": (16, 14),
}
"""The bytes of a profile's key and of its salt."""

_STUN_RETRY_SECONDS = 0.5
_SHORTEST_WAIT_SECONDS = 0.05
_PRIORITY = 2_113_937_151  # of a host candidate
_MTU = 1200
# A DTLS record has a header of 13 bytes, whose last two are the length of what follows.
_RECORD_HEADER = 13
_ALL_OUTPUT = 65_536


class ConnectionFailed(Exception):
    """The engine answered what no client can accept."""


@dataclass(frozen=True)
class SrtpKeys:
    """A master key, followed by its salt, for each direction; `profile` is one of `SRTP_PROFILES`."""

    profile: str
    sending: bytes
    receiving: bytes


class WebRtcClient:
    """A client that connects to a transport with ICE lite, as the engine's are.

    The caller sends each packet that `take_outgoing` returns, passes each packet it receives to `receive`, and calls
    `retransmit` when nothing came for `wait_seconds`. It does so until `connected` is true.
    """

    def __init__(
        self, username_fragment: str, password: str, fingerprint: str, profiles: Sequence[str] = SRTP_PROFILES
    ) -> None:
        """The first three are the transport's; the fingerprint is of SHA-256, with colons."""
        self._username = f"{username_fragment}:{secrets.token_hex(4)}"
        self._password = password.encode()
        self._expected = fingerprint.upper()
        self._ice_connected = False
        self._outgoing: list[bytes] = []
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self_signed_certificate(key)
        self.fingerprint = fingerprint_of(certificate)
        """The SHA-256 fingerprint of this client's certificate, to be told to the transport."""
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.use_certificate(certificate)
        context.use_privatekey(key)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)  # the fingerprint is compared instead
        context.set_options(SSL.OP_NO_QUERY_MTU)
        context.set_tlsext_use_srtp(":".join(profiles).encode())
        self._dtls = SSL.Connection(context)
        self._dtls.set_connect_state()
        self._dtls.set_ciphertext_mtu(_MTU)
        self.connected = False
        self.send_binding_request()

    @property
    def wait_seconds(self) -> float:
        if not self._ice_connected:
            return _STUN_RETRY_SECONDS
        timeout = self._dtls.DTLSv1_get_timeout()
        return max(_SHORTEST_WAIT_SECONDS, timeout if timeout is not None else _STUN_RETRY_SECONDS)

    def take_outgoing(self) -> list[bytes]:
        taken, self._outgoing = self._outgoing, []
        return taken

    def receive(self, packet: bytes) -> None:
        """Takes a STUN or DTLS packet, and ignores any other. Raises `ConnectionFailed`."""
        first = packet[0] if packet else 255
        if first <= 3:
            self._receive_stun(packet)
        elif 20 <= first <= 63:
            self._dtls.bio_write(packet)
            self._advance()

    def retransmit(self) -> None:
        """Sends again what may have been lost. Raises `ConnectionFailed`."""
        if not self._ice_connected:
            self.send_binding_request()
        elif not self.connected:
            self._dtls.DTLSv1_handle_timeout()
            self._advance()

    def srtp_keys(self) -> SrtpKeys:
        """Returns the keys that were agreed on. Raises `ConnectionFailed` if there are none (yet)."""
        profile = self._dtls.get_selected_srtp_profile().decode()
        if not self.connected or profile not in KEY_LENGTHS:
            raise ConnectionFailed("no SRTP profile was agreed on")
        key, salt = KEY_LENGTHS[profile]
        material = self._dtls.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key + salt))
        ours, theirs = material[:key], material[key : 2 * key]
        our_salt, their_salt = material[2 * key : 2 * key + salt], material[2 * key + salt :]
        return SrtpKeys(profile, ours + our_salt, theirs + their_salt)

    def send_binding_request(self) -> None:
        """Sends a binding request. After the connection an engine expects one every 30 s."""
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = self._username
        request.attributes["PRIORITY"] = _PRIORITY
        request.attributes["ICE-CONTROLLING"] = secrets.randbits(64)
        request.attributes["USE-CANDIDATE"] = None
        request.add_message_integrity(self._password)
        self._outgoing.append(bytes(request))

    def _receive_stun(self, packet: bytes) -> None:
        try:
            message = stun.parse_message(packet)
        except ValueError as error:
            raise ConnectionFailed(f"the answer to the STUN request is invalid: {error}") from error
        if message.message_class == stun.Class.ERROR:
            raise ConnectionFailed(f"the STUN request was refused: {message.attributes.get('ERROR-CODE')}")
        if message.message_class != stun.Class.RESPONSE or self._ice_connected:
            return
        if not message.check_message_integrity(self._password):
            raise ConnectionFailed("the answer to the STUN request is not authentic")
        self._ice_connected = True
        self._advance()

    def _advance(self) -> None:
        """Goes on with the handshake as far as what was received allows."""
        try:
            if self.connected:
                self._dtls.recv(1)
            else:
                self._dtls.do_handshake()
                self._check_fingerprint()
                self.connected = True
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError as error:
            raise ConnectionFailed("the engine closed the DTLS connection") from error
        except SSL.Error as error:
            raise ConnectionFailed(f"the DTLS handshake failed: {error}") from error
        self._outgoing += self._records()

    def _check_fingerprint(self) -> None:
        certificate = self._dtls.get_peer_certificate(as_cryptography=True)
        found = fingerprint_of(certificate) if certificate else "none"
        if found != self._expected:
            raise ConnectionFailed(f"the engine's certificate has the fingerprint {found}, not {self._expected}")

    def _records(self) -> list[bytes]:
        """Returns the DTLS records to send: each may be a packet of its own, and none may be divided."""
        try:
            output = self._dtls.bio_read(_ALL_OUTPUT)
        except SSL.WantReadError:
            return []
        records = []
        while output:
            end = _RECORD_HEADER + int.from_bytes(output[_RECORD_HEADER - 2 : _RECORD_HEADER], "big")
            records.append(output[:end])
            output = output[end:]
        return records


def self_signed_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "WebRTC")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Returns the SHA-256 fingerprint as it is written in SDP: hexadecimal, with colons."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
