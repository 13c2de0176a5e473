"""Finds the address of this machine's media ports that clients are given."""

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"

_SIOCGIFADDR = 0x8915
# An address reserved for documentation. Connecting a UDP socket to it selects the outgoing interface and sends
# nothing.
_ELSEWHERE = ("192.0.2.1", 9)


def announced_ip(configured: str, listen_ip: str) -> str:
    """Returns the address that clients are given for media.

    That is the configured address; else the one listened on, unless it stands for all; else the machine's first IPv4
    address that is not loopback, beginning with that of the default route; else 127.0.0.1.
    """
    if configured:
        return configured
    if not ipaddress.ip_address(listen_ip).is_unspecified:
        return listen_ip
    return next((ip for ip in _addresses() if not ipaddress.ip_address(ip).is_loopback), LOOPBACK)


def _addresses() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            yield probe.getsockname()[0]
        except OSError:
            pass  # no default route: a machine without internet still has interfaces
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # an interface without an IPv4 address
            yield socket.inet_ntoa(answer[20:24])
