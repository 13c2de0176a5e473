"""Addresses of clients, of which proxies tell."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.addresses import (
    V2_BYTES,
    BadProxyHeader,
    counted_as,
    forwarded_for,
    is_within,
    parse_networks,
    parse_proxy_header,
)

TRUSTED = parse_networks("10.0.0.0/8, fd00::/8")
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def version_2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(addresses)) + addresses


def tcp4(client: str, port: int = 5000) -> bytes:
    ends = socket.inet_aton(client) + socket.inet_aton("10.0.0.1") + struct.pack("!HH", port, 80)
    return version_2(0x21, 0x11, ends)


def tcp6(client: str) -> bytes:
    ends = socket.inet_pton(socket.AF_INET6, client) * 2 + struct.pack("!HH", 5000, 80)
    return version_2(0x21, 0x21, ends)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_address_counts_by_its_first_64_bits(address: str, name: str) -> None:
    assert counted_as(address) == name


@pytest.mark.parametrize(
    ("address", "trusted"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fd00::1", True), ("11.0.0.1", False), ("", False)],
)
def test_a_proxy_is_trusted_by_its_network(address: str, trusted: bool) -> None:
    assert is_within(address, TRUSTED) is trusted


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9, 10.0.0.5", "203.0.113.9"),
        ("203.0.113.9,10.0.0.5,10.0.0.6", "203.0.113.9"),
        ("10.0.0.9, 10.0.0.5", "10.0.0.9"),
        ("made up, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, unknown", ""),
        ("203.0.113.9, unknown, 10.0.0.5", "10.0.0.5"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", ""),
        ("1.1.1.1, " + "10.0.0.5, " * 100 + "10.0.0.6", "10.0.0.5"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxys(header: str, client: str) -> None:
    assert forwarded_for(header, TRUSTED) == client


@pytest.mark.parametrize(
    ("data", "client"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n", ("192.0.2.7", 5000)),
        (b"PROXY TCP6 2001:db8::1 fd00::1 5000 80\r\n", ("2001:db8::1", 5000)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        (tcp4("192.0.2.7"), ("192.0.2.7", 5000)),
        (tcp6("2001:db8::1"), ("2001:db8::1", 5000)),
        (version_2(0x20, 0x00, b""), None),
        (version_2(0x21, 0x31, b"x" * 216), None),
        (version_2(0x21, 0x11, tcp4("192.0.2.7")[16:] + b"extension"), ("192.0.2.7", 5000)),
    ],
)
def test_a_proxy_header_names_the_client_and_ends_at_its_size(data: bytes, client: tuple[str, int] | None) -> None:
    header = parse_proxy_header(data + b"GET / HTTP/1.1\r\n")
    assert header is not None
    assert (header.size, header.client) == (len(data), client)
    for size in range(len(data)):
        assert parse_proxy_header(data[:size]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 192.0.2.7 10.0.0.1 5000\r\n",
        b"PROXY TCP4 somewhere 10.0.0.1 5000 80\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 port 80\r\n",
        b"PROXY SCTP 192.0.2.7 10.0.0.1 5000 80\r\n",
        b"PROXY " + b"x" * 200,
        version_2(0x31, 0x11, b""),
        version_2(0x22, 0x11, b""),
        version_2(0x21, 0x11, b"short"),
        version_2(0x21, 0x11, b"x" * V2_BYTES),
    ],
)
def test_an_invalid_proxy_header_is_refused(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        parse_proxy_header(data)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\r\nGET", b"PROXIES", b"\x16\x03\x01", b"POST"])
def test_a_connection_without_a_proxy_header_is_left_as_it_is(data: bytes) -> None:
    header = parse_proxy_header(data)
    assert header is not None
    assert (header.size, header.client) == (0, None)


@given(st.binary(max_size=64), st.sampled_from([b"", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11\x00\x0c"]))
def test_any_bytes_are_a_proxy_header_or_none_or_refused(data: bytes, start: bytes) -> None:
    try:
        header = parse_proxy_header(start + data)
    except BadProxyHeader:
        return
    assert header is None or header.size <= len(start + data)


@given(st.text())
def test_any_forwarded_for_names_an_address_or_none(header: str) -> None:
    client = forwarded_for(header, TRUSTED)
    assert counted_as(client) or not client
