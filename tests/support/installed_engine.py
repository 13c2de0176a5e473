"""The engine of this machine, for tests that need a real one."""

from pathlib import Path

import pytest

from medianode.engines.mediasoup.translation import listen_info
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.install import find_engine
from medianode.toolchain.started_engine import StartedEngine


def installed_engine() -> Path:
    """Returns the engine's binary; skips the test if there is none."""
    try:
        binary = find_engine()
    except EngineUnavailable as unavailable:
        pytest.skip(unavailable.reason)
    if binary is None:
        pytest.skip("no media engine yet: python -m medianode.toolchain.install makes it")
    return binary


def create_server_and_router(engine: StartedEngine) -> None:
    """Creates the WebRtcServer `server`, on UDP and TCP ports of 127.0.0.1, and the router `router`."""
    listen = [listen_info(protocol, "127.0.0.1") for protocol in ("UDP", "TCP")]
    server = {"web_rtc_server_id": "server", "listen_infos": listen}
    engine.request("WORKER_CREATE_WEBRTCSERVER", "", ("Worker_CreateWebRtcServerRequest", server))
    engine.request("WORKER_CREATE_ROUTER", "", ("Worker_CreateRouterRequest", {"router_id": "router"}))
