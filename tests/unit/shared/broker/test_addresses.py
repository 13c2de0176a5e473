"""RabbitMQ addresses: several servers, virtual hosts, TLS."""

import ssl

import pytest

from shared.broker.addresses import Address, in_turn, parse


def test_defaults_are_those_of_a_local_rabbitmq() -> None:
    assert parse("amqp://localhost") == (Address("localhost", 5672),)
    assert parse("amqp://guest:guest@localhost:5672/") == (Address("localhost", 5672),)


def test_hosts_of_one_url_share_everything_but_the_port() -> None:
    found = parse("amqp://me:s%2Cc%40ret@one:1,two,[::1]:3/calls%2Fa?x=1")

    assert [(it.host, it.port) for it in found] == [("one", 1), ("two", 5672), ("::1", 3)]
    assert {(it.user, it.password, it.virtual_host) for it in found} == {("me", "s,c@ret", "calls/a")}
    assert [str(it) for it in found][1:] == ["amqp://two:5672/calls%2Fa", "amqp://[::1]:3/calls%2Fa"]


def test_each_url_of_a_list_keeps_its_own_options() -> None:
    found = parse("amqp://a:b@one/v,amqps://two,three:7?verify=0")

    assert [(it.host, it.port, it.secure, it.virtual_host, it.verify) for it in found] == [
        ("one", 5672, False, "v", True),
        ("two", 5671, True, "/", False),
        ("three", 7, True, "/", False),
    ]


def test_url_of_one_address_is_parsed_as_that_address() -> None:
    for url in ("amqp://m%40e:s%2Cc%3Aret@one:1/calls%2Fa", "amqps://two", "amqp://[::1]:3"):
        (address,) = parse(url)
        assert parse(address.url) == (address,)


def test_text_of_an_address_has_no_credentials() -> None:
    (address,) = parse("amqps://me:secret@one/v?cafile=/ca.pem")

    assert str(address) == "amqps://one:5671/v"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://one",
        "amqp:one",
        "amqp://",
        "amqp://me:secret@",
        "amqp://me:secret@one:x",
        "amqp://a,,b",
        "amqp://a:70000",
    ],
)
def test_unusable_url_is_an_error_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="RabbitMQ address") as raised:
        parse(url)
    assert "secret" not in str(raised.value)


def test_every_server_is_tried_from_a_random_start() -> None:
    servers = parse("amqp://a,b,c")
    orders = {tuple(it.host for it in in_turn(servers)) for _ in range(200)}

    assert orders == {("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")}


@pytest.mark.parametrize(
    ("query", "verified"),
    [
        ("", True),
        ("?verify=1", True),
        ("?verify=0", False),
        ("?verify=False", False),
        ("?no_verify_ssl=1", False),
        ("?no_verify_ssl=0", True),
    ],
)
def test_certificates_are_verified_unless_the_url_says_otherwise(query: str, verified: bool) -> None:
    (address,) = parse(f"amqps://one/{query}")
    context = address.tls()

    assert context is not None
    assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == (verified, verified)
    assert parse("amqp://one")[0].tls() is None


def test_unreadable_certificate_raises() -> None:
    (address,) = parse("amqps://one/?cafile=/does/not/exist.pem")

    with pytest.raises(OSError, match="No such file"):
        address.tls()
