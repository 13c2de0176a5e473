"""Proves that a client can connect to an engine: ICE and DTLS over UDP with a WebRtcServer.

An engine that starts and answers may still crash at the first DTLS packet, depending on how its OpenSSL was built.
`python -m medianode.toolchain.handshake BINARY SCHEMAS` needs what `webrtc_client` needs, and nothing else from PyPI.
"""

import socket
import sys
import time
from pathlib import Path
from typing import Any

from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.started_engine import StartedEngine
from medianode.toolchain.webrtc_client import ConnectionFailed, WebRtcClient

_TIMEOUT = 10.0
_LOOPBACK = "127.0.0.1"


def check_handshake(binary: Path, schemas: Path) -> None:
    """Connects a client to the engine, which is started for that and ended. Raises `EngineUnavailable`."""
    with StartedEngine(binary, schemas, ("--logLevel=error",)) as engine:
        transport = _create_transport(engine)
        ice = transport["ice_parameters"]
        fingerprints = {it["algorithm"]: it["value"] for it in transport["dtls_parameters"]["fingerprints"]}
        client = WebRtcClient(ice["username_fragment"], ice["password"], fingerprints["SHA256"])
        remote = {"fingerprints": [{"algorithm": "SHA256", "value": client.fingerprint}], "role": "CLIENT"}
        engine.request(
            "WEBRTCTRANSPORT_CONNECT", "transport", ("WebRtcTransport_ConnectRequest", {"dtls_parameters": remote})
        )
        try:
            _connect(client, transport["ice_candidates"][0]["port"])
            client.srtp_keys()
        except (ConnectionFailed, OSError) as error:
            engine.request("WORKER_DUMP")  # raises how the engine has ended, if it has
            raise EngineUnavailable(str(error)) from error
        engine.wait_for("WEBRTCTRANSPORT_DTLS_STATE_CHANGE", "transport", dtls_state="CONNECTED")


def _create_transport(engine: StartedEngine) -> dict[str, Any]:
    listen = {"protocol": "UDP", "ip": _LOOPBACK, "port": 0, "port_range": {}, "flags": {}}
    engine.request(
        "WORKER_CREATE_WEBRTCSERVER",
        "",
        ("Worker_CreateWebRtcServerRequest", {"web_rtc_server_id": "server", "listen_infos": [listen]}),
    )
    engine.request("WORKER_CREATE_ROUTER", "", ("Worker_CreateRouterRequest", {"router_id": "router"}))
    options = {"base": {}, "listen": ("ListenServer", {"web_rtc_server_id": "server"})}
    return engine.request(
        "ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER",
        "router",
        ("Router_CreateWebRtcTransportRequest", {"transport_id": "transport", "options": options}),
    )


def _connect(client: WebRtcClient, port: int) -> None:
    """Exchanges packets until the client is connected. Raises `ConnectionFailed` or `OSError`."""
    deadline = time.monotonic() + _TIMEOUT
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((_LOOPBACK, port))
        while not client.connected:
            for packet in client.take_outgoing():
                udp.send(packet)
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise ConnectionFailed(f"the client was not connected within {_TIMEOUT:.0f} s")
            udp.settimeout(min(client.wait_seconds, remaining))
            try:
                client.receive(udp.recv(65_536))
            except TimeoutError:
                client.retransmit()
        for packet in client.take_outgoing():
            udp.send(packet)


def main() -> None:
    binary, schemas = map(Path, sys.argv[1:])
    try:
        check_handshake(binary, schemas)
    except EngineUnavailable as unavailable:
        sys.exit(unavailable.reason)


if __name__ == "__main__":
    main()
