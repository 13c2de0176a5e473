"""What logs must not tell."""

import json
import subprocess
import sys

LOGS = """
from shared.telemetry import log
log.configure("info", "json", role="gateway")
secrets = {name: f"secret-{name}" for name in ("token", "resume", "password", "authorization")}
log.get("test").info("connected", peer="alice", **secrets)
"""


def test_tokens_and_passwords_are_not_logged() -> None:
    """In a process of its own: logs are set up once in one."""
    said = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, check=True).stderr
    assert json.loads(said)["peer"] == "alice"
    assert "secret" not in said
