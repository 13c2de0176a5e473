"""A WebRTC client in Python: it connects over UDP or TCP, and sends and receives RTP and RTCP by SRTP."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import pylibsrtp
from pylibsrtp._binding import ffi  # type: ignore[import-not-found]  # compiled, without a stub

from medianode.toolchain.webrtc_client import SRTP_PROFILES, SrtpKeys, WebRtcClient

PROFILES: Final = {
    "SRTP_AEAD_AES_256_GCM": pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
    "SRTP_AEAD_AES_128_GCM": pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    "SRTP_AES128_CM_SHA1_80": pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    "SRTP_AES128_CM_SHA1_32": pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
}
CONNECT_SECONDS = 10.0
CONSENT_SECONDS = 10.0
"""An engine gives up a client that has sent no binding request for 30 s."""


class Session(pylibsrtp.Session):
    """A session for packets of up to 64 KiB, for which the buffer of pylibsrtp is too small."""

    def __init__(self, policy: pylibsrtp.Policy) -> None:
        super().__init__(policy)
        self._cdata = ffi.new("char[]", 2 * 65_536)
        self._buffer = ffi.buffer(self._cdata)


class Udp(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._receive(data)

    def send(self, packet: bytes) -> None:
        self._transport.sendto(packet)

    def close(self) -> None:
        self._transport.close()


class Tcp(asyncio.Protocol):
    """Packets on a stream, each with its length in front (RFC 4571)."""

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._transport: Any = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2 and len(self._buffer) >= (end := 2 + int.from_bytes(self._buffer[:2], "big")):
            packet = bytes(self._buffer[2:end])
            del self._buffer[:end]
            self._receive(packet)

    def send(self, packet: bytes) -> None:
        self._transport.write(len(packet).to_bytes(2, "big") + packet)

    def close(self) -> None:
        self._transport.close()


class MediaClient:
    """A client of a WebRTC transport. First tell the transport `fingerprint`, then `connect`.

    What is received is decrypted and put into `rtp` and `rtcp`.
    """

    def __init__(
        self, username_fragment: str, password: str, fingerprint: str, profiles: Sequence[str] = SRTP_PROFILES
    ) -> None:
        self._client = WebRtcClient(username_fragment, password, fingerprint, profiles)
        self.fingerprint = self._client.fingerprint
        self.port = 0
        """The port that it is connected to."""
        self.rtp: asyncio.Queue[bytes] = asyncio.Queue()
        self.rtcp: asyncio.Queue[bytes] = asyncio.Queue()
        self.keys: SrtpKeys | None = None
        self._connection: Udp | Tcp | None = None
        self._sending: Session | None = None
        self._receiving: Session | None = None
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def connect(self, host: str, port: int, protocol: str = "udp") -> None:
        """Connects to a candidate. Raises `ConnectionFailed`, `OSError` or `TimeoutError`."""
        loop = asyncio.get_running_loop()
        self.port = port
        if protocol == "udp":
            _, self._connection = await loop.create_datagram_endpoint(
                lambda: Udp(self._receive), remote_addr=(host, port)
            )
        else:
            _, self._connection = await loop.create_connection(lambda: Tcp(self._receive), host, port)
        self._send_and_wait()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connected
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._connection:
            self._connection.close()

    def send_rtp(self, packet: bytes) -> None:
        self.send(self.protect(packet))

    def send_rtcp(self, packet: bytes) -> None:
        self.send(self.protect(packet, rtcp=True))

    def protect(self, packet: bytes, *, rtcp: bool = False) -> bytes:
        """Returns a packet as SRTP or SRTCP. Raises `pylibsrtp.Error` if it is not RTP or RTCP."""
        assert self._sending
        return bytes(self._sending.protect_rtcp(packet) if rtcp else self._sending.protect(packet))

    def send(self, packet: bytes) -> None:
        """Sends a packet as it is."""
        assert self._connection
        self._connection.send(packet)

    def _receive(self, packet: bytes) -> None:
        if packet and 128 <= packet[0] <= 191:
            if self._receiving is None:
                return
            if 192 <= packet[1] <= 223:
                self.rtcp.put_nowait(self._receiving.unprotect_rtcp(packet))
            else:
                self.rtp.put_nowait(self._receiving.unprotect(packet))
            return
        self._do(lambda: self._client.receive(packet))

    def _do(self, step: Callable[[], None]) -> None:
        """Goes a step on in the client's protocols; its failure is that of `connect`."""
        try:
            step()
            if self._client.connected and self._receiving is None:
                self._take_keys(self._client.srtp_keys())
        except Exception as error:
            if self._connected.done():
                raise
            self._connected.set_exception(error)
            return
        self._send_and_wait()
        if self._client.connected and not self._connected.done():
            self._connected.set_result(None)

    def _send_and_wait(self) -> None:
        for packet in self._client.take_outgoing():
            self.send(packet)
        if self._timer:
            self._timer.cancel()
        again = self._client.send_binding_request if self._client.connected else self._client.retransmit
        seconds = CONSENT_SECONDS if self._client.connected else self._client.wait_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._do, again)

    def _take_keys(self, keys: SrtpKeys) -> None:
        self.keys = keys
        profile = PROFILES[keys.profile]
        outbound, inbound = pylibsrtp.Policy.SSRC_ANY_OUTBOUND, pylibsrtp.Policy.SSRC_ANY_INBOUND
        policy = pylibsrtp.Policy(key=keys.sending, ssrc_type=outbound, srtp_profile=profile)
        policy.allow_repeat_tx = True
        self._sending = Session(policy)
        self._receiving = Session(pylibsrtp.Policy(key=keys.receiving, ssrc_type=inbound, srtp_profile=profile))
