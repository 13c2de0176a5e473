"""The page's files are read, compressed and watched off the event loop."""

import asyncio
import gzip
import threading
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.http import site
from gateway.http.site import Site
from tests.support.waiting import until

REQUEST: Any = SimpleNamespace(headers={"Accept-Encoding": "gzip"})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("<h1>Plenary</h1>" * 50)
    return tmp_path


def body(served: Site, path: str = "/") -> bytes:
    response = served.answer(path, REQUEST)
    assert response.status == HTTPStatus.OK
    return gzip.decompress(response.body)


async def test_no_file_is_touched_on_the_event_loop(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def noting(function: Any) -> Any:
        def noted(*arguments: Any, **named: Any) -> Any:
            threads.add(threading.current_thread())
            return function(*arguments, **named)

        return noted

    monkeypatch.setattr(site, "CHECK_EVERY", 0.001)
    monkeypatch.setattr(gzip, "compress", noting(gzip.compress))
    for name in ("stat", "rglob", "read_bytes", "is_file", "is_dir"):
        monkeypatch.setattr(Path, name, noting(getattr(Path, name)))
    served = Site(page, lambda: "")
    await served.load()
    watching = asyncio.create_task(served.watch())
    body(served)
    (page / "index.html").write_text("new")
    await until(lambda: body(served) == b"new")
    watching.cancel()
    assert threads
    assert threading.current_thread() not in threads


async def test_an_unchanged_page_is_not_read_again(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Site(page, lambda: "")
    await served.load()
    monkeypatch.setattr(Path, "read_bytes", None)
    await served.load()
    assert b"Plenary" in body(served)


async def test_a_page_that_cannot_be_read_for_a_moment_stays_served(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "CHECK_EVERY", 0.001)
    served = Site(page, lambda: "")
    await served.load()
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def failing(*_: Any) -> Any:
        loop.call_soon_threadsafe(looked.set)
        raise FileNotFoundError("removed by a build")

    monkeypatch.setattr(site, "_read_if_changed", failing)
    watching = asyncio.create_task(served.watch())
    await asyncio.wait_for(looked.wait(), 20)
    await asyncio.sleep(0.01)
    assert not watching.done()
    assert b"Plenary" in body(served)
    watching.cancel()


async def test_without_a_page_nothing_is_watched() -> None:
    served = Site(None, lambda: "")
    await served.load()
    await asyncio.wait_for(served.watch(), 20)
    assert served.answer("/", REQUEST).status == HTTPStatus.NOT_FOUND
