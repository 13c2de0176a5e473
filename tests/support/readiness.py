"""What a process says when it is asked whether it is ready."""

import urllib.error
import urllib.request

from devtools.cluster import Role

READY = "ready\n"


def is_said(role: Role, text: str) -> bool:
    """Whether the role's internal port answers `/readyz` with `READY`, or with a reason that contains `text`."""
    try:
        with urllib.request.urlopen(f"{role.metrics_url}/readyz", timeout=5) as answer:
            said = answer.read().decode()
    except urllib.error.HTTPError as refused:
        said = refused.read().decode()
    return said == READY if text == READY else text in said
