"""Headers and TLS settings of the public port."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.http.request import tokens
from gateway.websocket.acceptor import handshake_fault, tls
from shared.settings import GatewaySettings
from shared.tls import BadCertificate


def test_a_header_list_is_split_into_tokens() -> None:
    assert tokens("keep-alive, Upgrade,,") == ["keep-alive", "Upgrade"]


@pytest.mark.parametrize(
    ("header", "value", "fault"),
    [
        ("Connection", "Upgrade", ""),
        ("Connection", "close", "Connection: expected Upgrade"),
        ("Sec-WebSocket-Version", "", "Sec-WebSocket-Version: missing"),
        ("Sec-WebSocket-Version", "14", "Sec-WebSocket-Version: expected 13"),
        ("Sec-WebSocket-Key", "", "Sec-WebSocket-Key: expected 16 bytes as Base64"),
        ("Sec-WebSocket-Key", "AAAA", "Sec-WebSocket-Key: expected 16 bytes as Base64"),
        ("Sec-WebSocket-Key", "äöü", "Sec-WebSocket-Key: expected 16 bytes as Base64"),
    ],
)
def test_an_invalid_header_of_a_handshake_is_named(header: str, value: str, fault: str) -> None:
    valid = {"Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "A" * 22 + "=="}
    request: Any = SimpleNamespace(headers=CIMultiDict(valid | {header: value}))
    assert handshake_fault(request) == fault


def test_a_missing_certificate_file_is_named(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text("x")
    with pytest.raises(BadCertificate, match=f"cannot read {key}: No such file"):
        tls(GatewaySettings(tls_cert=str(cert), tls_key=str(key)))


def test_an_invalid_certificate_file_is_named(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("x")
    with pytest.raises(BadCertificate, match=str(cert)):
        tls(GatewaySettings(tls_cert=str(cert), tls_key=str(cert)))
