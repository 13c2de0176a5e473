"""The head of an HTTP request, and what is refused of it."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.request import FIELDS_LIMIT, TARGET_BYTES, BadRequest, parse_head, undecodable_fields


def head(line: bytes, *fields: bytes, host: bool = True) -> bytes:
    return b"\r\n".join([line, *([b"Host: x"] if host else []), *fields])


def refused(line: bytes, *fields: bytes, host: bool = True) -> tuple[HTTPStatus, str]:
    with pytest.raises(BadRequest) as caught:
        parse_head(head(line, *fields, host=host))
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/ws?roomId=a&x=?", "/ws", "roomId=a&x=?"),
        (b"/r%C3%A4um", "/räum", ""),
        ("/räum?roomId=кино".encode(), "/räum", "roomId=кино"),
        (b"http://plenary.example:8080/ws?a=b", "/ws", "a=b"),
        (b"WS://plenary.example", "/", ""),
        (b"https://plenary.example?roomId=a", "/", "roomId=a"),
        (b"//etc/passwd", "//etc/passwd", ""),
    ],
)
def test_a_target_is_split_into_path_and_query(target: bytes, path: str, query: str) -> None:
    request = parse_head(head(b"GET " + target + b" HTTP/1.1"))
    assert (request.path, request.query) == (path, query)


def test_the_asterisk_is_a_target_of_options_only() -> None:
    assert parse_head(head(b"OPTIONS * HTTP/1.1")).path == "*"
    assert refused(b"GET * HTTP/1.1")[0] == 400


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/?roomId=кино".encode("koi8-r"), "roomId"),
        (b"/?x=1&peerName=Zo\xeb&roomId=r", "peerName"),
        (b"/?resume=\xff", "resume"),
        (b"/?\xff=1", "\\xff"),
        (b"/r\xe4um?roomId=r", "path"),
        (b"/v1/rooms/a%FFb", "path"),
        (b"/%C0%80", "path"),
        (b"/%ED%A0%80", "path"),
    ],
)
def test_a_target_that_is_not_utf8_is_refused_with_the_field(target: bytes, field: str) -> None:
    assert refused(b"GET " + target + b" HTTP/1.1") == (400, f"{field}: not UTF-8")


def test_fields_of_a_query_that_are_not_utf8_are_named() -> None:
    assert list(undecodable_fields("roomId=%ff&peerName=%C3%A9&x=%E9&100%")) == ["roomId", "x"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /a b HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"GET / HTTP/11",
        b"GET / http/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET nowhere HTTP/1.1",
        b"GET x:80 HTTP/1.1",
    ],
)
def test_a_request_line_of_another_form_is_refused(line: bytes) -> None:
    assert refused(line)[0] == 400


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"no colon", "header: expected a name and a colon, got no colon"),
        (b"Name : x", "header: expected a name and a colon, got Name : x"),
        (b" folded", "header: expected a name and a colon, got  folded"),
        (b": x", "header: expected a name and a colon, got : x"),
        (b"X: a\x00b", "X: control characters"),
        (b"X: a\nb", "X: control characters"),
        (b"host: y", "host: given twice"),
    ],
)
def test_an_invalid_header_is_named(field: bytes, reason: str) -> None:
    assert refused(b"GET / HTTP/1.1", field) == (400, reason)


def test_repeated_headers_are_joined() -> None:
    request = parse_head(head(b"GET / HTTP/1.1", b"Connection: keep-alive", b"connection:\tUpgrade "))
    assert request.headers["Connection"] == "keep-alive, Upgrade"


def test_http_1_0_needs_no_host_and_later_versions_do() -> None:
    assert parse_head(head(b"GET / HTTP/1.0", host=False)).minor == 0
    assert parse_head(head(b"GET / HTTP/1.9")).minor == 9
    assert refused(b"GET / HTTP/1.1", host=False) == (400, "Host: missing")


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.0"])
def test_other_versions_of_http_are_not_supported(version: bytes) -> None:
    assert refused(b"GET / " + version)[0] == 505


def test_a_target_or_number_of_headers_beyond_the_limit_is_refused() -> None:
    assert parse_head(head(b"GET /" + b"x" * (TARGET_BYTES - 1) + b" HTTP/1.1")).path
    assert refused(b"GET /" + b"x" * TARGET_BYTES + b" HTTP/1.1")[0] == 414
    assert parse_head(head(b"GET / HTTP/1.1", *[b"X: y"] * (FIELDS_LIMIT - 1))).headers
    assert refused(b"GET / HTTP/1.1", *[b"X: y"] * FIELDS_LIMIT)[0] == 431


@pytest.mark.parametrize(
    ("fields", "has_body"),
    [
        ([], False),
        ([b"Content-Length: 0"], False),
        ([b"Content-Length: 10"], True),
        ([b"Content-Length: x"], True),
        ([b"Transfer-Encoding: chunked"], True),
    ],
)
def test_a_body_is_announced_by_the_headers(fields: list[bytes], has_body: bool) -> None:
    assert parse_head(head(b"GET / HTTP/1.1", *fields)).has_body is has_body


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    for text in (data, head(b"GET /" + data + b" HTTP/1.1"), head(b"GET / HTTP/1.1", data)):
        reason = ""
        try:
            request = parse_head(text)
            request.path.encode()
            list(undecodable_fields(request.query))
        except BadRequest as bad:
            reason = bad.reason
        assert "\r" not in reason
        assert len(reason) < 200
