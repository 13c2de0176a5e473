"""Shows the progress of a long installation: bars on a terminal, elsewhere a plain line now and then."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_PLAIN_STEPS = 10


class Step:
    """A step that is being carried out. `advance` may be called at any rate."""

    def __init__(self, title: str) -> None:
        self.title = title

    def advance(self, done: int, total: int) -> None:
        """Shows that `done` of `total` pieces are finished."""


class _BarStep(Step):
    def __init__(self, title: str, progress: Progress) -> None:
        super().__init__(title)
        self._progress = progress
        self._task = progress.add_task(title, total=None)

    def advance(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


class _PlainStep(Step):
    def __init__(self, title: str, console: Console) -> None:
        super().__init__(title)
        self._console = console
        self._shown = 0

    def advance(self, done: int, total: int) -> None:
        tenth = done * _PLAIN_STEPS // total
        if tenth > self._shown:
            self._shown = tenth
            self._console.print(f"{self.title}: {100 * tenth // _PLAIN_STEPS}% ({done}/{total})")


class Report:
    """Shows the steps on stderr, so that stdout stays free for results."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(text)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        if not self._console.is_terminal:
            self._console.print(title)
            yield _PlainStep(title, self._console)
            return
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _BarStep(title, progress)
