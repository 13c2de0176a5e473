"""Names in a connection's query, and TLS settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.front import names, tls, tokens, valid_name
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


def test_half_of_tls_is_an_error() -> None:
    with pytest.raises(ValueError, match="belong together"):
        tls(GatewaySettings(tls_cert="cert.pem"))
