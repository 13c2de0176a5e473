"""Headers and TLS settings of the public port."""

from pathlib import Path

import pytest

from gateway.websocket.acceptor import BadCertificate, tls, tokens
from shared.settings import GatewaySettings


def test_a_header_list_is_split_into_tokens() -> None:
    assert tokens("keep-alive, Upgrade,,") == ["keep-alive", "Upgrade"]


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
