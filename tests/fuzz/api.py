"""Fuzzes the server API of a running gateway with schemathesis, by the OpenAPI document that the gateway serves."""

import subprocess
import sys
from pathlib import Path
from typing import Final

CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
)


def fuzz(api_url: str, key: str, *, seed: int, examples: int, folder: Path) -> str:
    """Calls each operation with about `examples` valid and invalid inputs; returns what schemathesis reports.

    Raises `AssertionError` with the report if a check fails: an answer of 500, or one that is not in the document.
    """
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{api_url}/v1/openapi.json",
        "--header", f"Authorization: Bearer {key}",
        "--checks", ",".join(CHECKS),
        "--phases", "coverage,fuzzing",
        "--max-examples", str(examples),
        "--seed", str(seed),
        "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"schemathesis found:\n{done.stdout}\n{done.stderr}")
    return done.stdout
