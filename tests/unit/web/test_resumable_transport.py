"""Runs the JavaScript tests of the resumable transport."""

import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[3] / "web"


@pytest.mark.parametrize("test", sorted(path.name for path in (WEB / "test").glob("*.test.js")))
def test_the_transports_own_tests_pass(test: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js: apt-get install nodejs")
    run = subprocess.run([node, "--test", f"test/{test}"], cwd=WEB, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
