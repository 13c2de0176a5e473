"""Parses `PLENARY_AMQP_URL`: one RabbitMQ server or several, over TCP or TLS.

Several servers are hosts of one URL, `amqp://user:password@rabbit1,rabbit2:5673/vhost`, or URLs, separated by commas.
The virtual host is the path, as in aiormq and aio-pika: none or `/` is the virtual host `/`. An `amqps` URL takes
these options in its query: `cafile` (certificates of the authorities, PEM), `certfile` and `keyfile` (a client
certificate), `verify=0` (accept any certificate; aiormq's `no_verify_ssl=1` means the same).
"""

import random
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from shared.tls import load_authorities, load_chain

_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_TLS_OPTIONS: Final = frozenset({"cafile", "certfile", "keyfile", "verify"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class Address:
    """The address of one RabbitMQ server, with login and TLS options; the paths of files may be empty."""

    host: str
    port: int
    user: str = "guest"
    password: str = "guest"  # noqa: S105 - what RabbitMQ is installed with
    virtual_host: str = "/"
    secure: bool = False
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""
    verify: bool = True

    def __str__(self) -> str:
        """Returns the address without user and password, for logs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'amqps' if self.secure else 'amqp'}://{host}:{self.port}{_path(self.virtual_host)}"

    @property
    def url(self) -> str:
        """The URL of this server alone, with user and password and without TLS options."""
        scheme, rest = str(self).split("://", 1)
        return f"{scheme}://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{rest}"

    def tls(self) -> ssl.SSLContext | None:
        """Makes the TLS context of an `amqps` address; reads from disk. Raises `BadCertificate`."""
        if not self.secure:
            return None
        context = load_authorities(self.cafile)
        if self.certfile:
            load_chain(context, self.certfile, self.keyfile or self.certfile)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse(url: str) -> tuple[Address, ...]:
    """Returns the servers in the order written. Raises `ValueError`, whose text never repeats the password."""
    return tuple(address for each in re.split(r",(?=amqps?://)", url) for address in _servers(each))


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """Returns all addresses in their order, started at a random one, so that processes spread over the servers."""
    first = random.randrange(len(addresses))
    return [*addresses[first:], *addresses[:first]]


def _servers(url: str) -> list[Address]:
    scheme, separator, rest = url.partition("://")
    if scheme not in _PORTS or not separator:
        raise ValueError("a RabbitMQ address begins with amqp:// or amqps://")
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    login, _, hosts = rest[:end].rpartition("@")
    user, colon, password = login.partition(":")
    tail = urlsplit(f"//host{rest[end:]}")
    options = dict(parse_qsl(tail.query, keep_blank_values=True))
    if scheme == "amqp" and (unused := sorted(_TLS_OPTIONS & options.keys())):
        raise ValueError(f"{', '.join(unused)} in a RabbitMQ address: only amqps:// speaks TLS")
    if options.get("keyfile") and not options.get("certfile"):
        raise ValueError("keyfile in a RabbitMQ address needs a certfile")
    verify = options.get("verify", "1").lower() not in _FALSE and options.get("no_verify_ssl", "0").lower() in _FALSE
    return [
        Address(
            host,
            port,
            unquote(user) if login else "guest",
            unquote(password) if colon else "guest",
            unquote(tail.path[1:]) or "/",
            scheme == "amqps",
            options.get("cafile", ""),
            options.get("certfile", ""),
            options.get("keyfile", ""),
            verify,
        )
        for host, port in (_host_and_port(each, _PORTS[scheme]) for each in hosts.split(","))
    ]


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("a port of a RabbitMQ address is not a number from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError("a RabbitMQ address has no host")
    return parts.hostname, default if port is None else port


def _path(virtual_host: str) -> str:
    return "/" if virtual_host == "/" else f"/{quote(virtual_host, safe='')}"
