"""`python -m tests.support.crashing_worker …` runs `plenary …` with one request that kills the process."""

import os
import signal
from typing import Any

from plenary import cli
from shared.protocol import client

DEADLY = "dieOfThis"
"""The method of that request."""


def main() -> None:
    decode = client.decode_request

    def decode_or_die(data: Any) -> client.FromClient:
        if DEADLY.encode() in bytes(data):
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(data)

    client.decode_request = decode_or_die  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
