"""Names in a connection's query, and TLS settings."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.front import BadCertificate, names, tls, tokens, valid_name
from shared.settings import GatewaySettings


@pytest.mark.parametrize("name", ["a", "räum/1?&=", "☺" * 42, "x" * 128, " "])
def test_names_are_utf8_without_control_characters(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "☺" * 43, "a\nb", "\x7f", "\x85", "\ud800"])
def test_other_names_are_not(name: str) -> None:
    assert not valid_name(name)


def test_names_are_decoded() -> None:
    assert names("roomId=r%C3%A4um+1&peerName=a%26b&x=1") == ("räum 1", "a&b")


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_no_query_does_harm(query: str) -> None:
    names(query)


def test_header_tokens() -> None:
    assert tokens("keep-alive, Upgrade,,") == ["keep-alive", "Upgrade"]


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text("x")
    with pytest.raises(BadCertificate, match=f"cannot read {key}: No such file"):
        tls(GatewaySettings(tls_cert=str(cert), tls_key=str(key)))


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("x")
    with pytest.raises(BadCertificate, match=str(cert)):
        tls(GatewaySettings(tls_cert=str(cert), tls_key=str(cert)))
