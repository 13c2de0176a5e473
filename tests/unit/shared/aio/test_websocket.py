"""Headers of frames that are written together."""

import pytest

from shared.aio.websocket import text_header


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_sizes_take_as_many_bytes_as_the_standard_says(size: int, header: bytes) -> None:
    assert text_header(size) == header
