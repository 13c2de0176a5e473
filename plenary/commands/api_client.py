"""A client of the server API for the command line."""

import json
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import quote, urlsplit

TIMEOUT: Final = 30.0
"""Seconds to wait for an answer."""


class ApiError(Exception):
    """The API could not be reached or refused the request; the text says why, and which option to look at."""


class ApiClient:
    """Sends requests to a gateway's server API. Raises `ApiError` for a `url` that is not http or https."""

    def __init__(self, url: str, key: str) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ApiError(f"{url}: expected the API's address, like http://127.0.0.1:8081")
        self._url = url.rstrip("/")
        self._key = key

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Sends a request and returns the JSON of the answer. Raises `ApiError`."""
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as failed:
            raise ApiError(self._explain(failed)) from None
        except (OSError, ValueError) as failed:
            why = getattr(failed, "reason", failed)
            raise ApiError(
                f"{self._url} is no Plenary API that answers: {why} (--api-url, PLENARY_API_URL)"
            ) from None

    def _explain(self, failed: urllib.error.HTTPError) -> str:
        if failed.code == 401:
            return "the API does not accept this key (--api-key, PLENARY_API_KEY)"
        try:
            return f"{json.load(failed)['reason']} ({failed.code})"
        except (ValueError, KeyError, TypeError):
            return f"{self._url} answers {failed.code}: is this Plenary's API?"


def path(*parts: str) -> str:
    """Returns the API's path of these parts: `/v1/rooms/a%2Fb` for ("rooms", "a/b")."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)
