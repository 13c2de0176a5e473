"""Wrong bytes at the ports of a gateway are refused, and the log tells of no exception."""

import asyncio
from pathlib import Path

import pytest

from devtools.cluster import all_in_one
from tests.fuzz import api, gateway_port
from tests.support.sampling import examples

KEY = "a key"


def test_gateway_survives_wrong_bytes(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with all_in_one(tmp_path, "--engine", "null") as role:
        outcomes = asyncio.run(gateway_port.fuzz(role, pytestconfig.option.seed, 0, examples(3000)))
    print(outcomes)
    assert gateway_port.defects(role) == []
    assert {"http: HTTP/1.1 200", "query: HTTP/1.1 101", "frames: HTTP/1.1 101"} <= set(outcomes)


def test_server_api_is_as_its_document_says(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with all_in_one(tmp_path, "--engine", "null", "--api-port", "0", "--api-key", KEY) as role:
        url = role.until_listening("api")
        print(api.fuzz(url, KEY, seed=pytestconfig.option.seed, examples=examples(10), folder=tmp_path))
    assert gateway_port.defects(role) == []
