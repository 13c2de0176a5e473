"""Finds out whose a connection is: the socket's address, or the one that a trusted proxy names.

A proxy names its client with the PROXY protocol, version 1 or 2, before the first byte of the connection, or in the
header X-Forwarded-For. Both count only on connections from the networks that the operator trusts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

IPV6_PREFIX: Final = 64
"""The bits of an IPv6 address that count: one customer or one machine usually has all addresses below."""
FORWARDED_LIMIT: Final = 32
"""The number of addresses of an X-Forwarded-For that are looked at, from the right."""
_CACHED: Final = 4096

V1_BYTES: Final = 107
"""The largest header of version 1, with its line end."""
V2_BYTES: Final = 2048
"""The largest header of version 2 that is read; one may have up to 64 KiB of extensions."""
_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED: Final = 16
_V2_LOCAL, _V2_PROXY = 0x20, 0x21
_V2_FAMILIES: Final = {0x11: 4, 0x21: 16}
"""The bytes of an address by address family and transport, for TCP over IPv4 and IPv6."""
_V1_WORDS: Final = 6
_UNKNOWN: Final = b"UNKNOWN"


class BadProxyHeader(Exception):
    """A trusted proxy sent a header of the PROXY protocol that is invalid or too long."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header of the PROXY protocol: its size in bytes, and the client; `client` is None for the proxy itself."""

    size: int
    client: tuple[str, int] | None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Returns the networks of a list separated by commas. Raises ValueError if one is invalid."""
    return tuple(ip_network(part) for part in filter(None, (part.strip() for part in text.split(","))))


@lru_cache(_CACHED)
def parse_address(text: str) -> Address | None:
    """Returns an address; None if it is none. An IPv4 address that is written as one of IPv6 counts as IPv4."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_within(text: str, networks: Sequence[Network]) -> bool:
    """Returns whether an address belongs to one of the networks."""
    address = parse_address(text)
    return address is not None and any(address in network for network in networks)


def counted_as(text: str) -> str:
    """Returns the name under which an address is counted: itself, or the first half of one of IPv6."""
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX), IPV6_PREFIX)))
    return str(address) if address is not None else text


def forwarded_for(header: str, networks: Sequence[Network]) -> str:
    """Returns the client that an X-Forwarded-For names: its rightmost address that is no trusted proxy's.

    Every proxy adds on the right what it has seen, so that all left of that address may be made up. If all are
    trusted, the client is the leftmost. Returns "" if the header names no address.
    """
    client = ""
    for part in reversed(header.split(",")[-FORWARDED_LIMIT:]):
        address = parse_address(_without_port(part.strip()))
        if address is None:
            return client
        client = str(address)
        if not any(address in network for network in networks):
            return client
    return client


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


# --- the PROXY protocol -----------------------------------------------------------------------------------------


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Returns the header with which a connection begins; one of size 0 if it begins with none.

    `data` are the first bytes of the connection. Returns None if they are too few to say. Raises `BadProxyHeader`.
    """
    if data.startswith(_V2):
        return _version_2(data)
    if data.startswith(_V1):
        return _version_1(data)
    return None if _V2.startswith(data) or _V1.startswith(data) else ProxyHeader(0, None)


def _version_1(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:V1_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= V1_BYTES:
            raise BadProxyHeader("longer than its version allows")
        return None
    size, words = len(line) + len(end), line.split(b" ")
    if words[1] == _UNKNOWN:
        return ProxyHeader(size, None)
    if len(words) != _V1_WORDS or words[1] not in (b"TCP4", b"TCP6") or not words[4].isdigit():
        raise BadProxyHeader("not a line of version 1")
    client = parse_address(words[2].decode("ascii", "replace"))
    if client is None:
        raise BadProxyHeader("not an address")
    return ProxyHeader(size, (str(client), int(words[4][:5])))


def _version_2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED:
        return None
    command, family = data[12], data[13]
    size = _V2_FIXED + int.from_bytes(data[14:16])
    if size > V2_BYTES:
        raise BadProxyHeader(f"longer than {V2_BYTES} bytes")
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise BadProxyHeader("not a command of version 2")
    if len(data) < size:
        return None
    width = _V2_FAMILIES.get(family)
    if command == _V2_LOCAL or width is None:
        return ProxyHeader(size, None)
    if size < _V2_FIXED + 2 * width + 4:
        raise BadProxyHeader("shorter than its addresses")
    client = parse_address(str(ip_address(data[_V2_FIXED : _V2_FIXED + width])))
    port = data[_V2_FIXED + 2 * width : _V2_FIXED + 2 * width + 2]
    return ProxyHeader(size, (str(client), int.from_bytes(port)))
