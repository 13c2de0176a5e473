"""Starts processes whose wall clocks the test sets; their monotonic clocks go on as those of any process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools.cluster import Process, from_scratch

_FOLDER = Path(__file__).parent / "shifted_clock"


class ShiftedClocks:
    """A `devtools.cluster.Start`. Each process has a clock by the name that it is started with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def set(self, name: str, seconds: float) -> None:
        """Sets the wall clock of a process so many seconds ahead of this one's, before its start or while it runs."""
        written = self._file(name).with_suffix(".new")
        written.write_text(str(seconds))
        written.rename(self._file(name))

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"

    def __call__(
        self, program: str, arguments: Sequence[str], *, cwd: Path, log: Path, env: Mapping[str, str]
    ) -> Process:
        name = arguments[arguments.index("--name") + 1]
        shifted = {"PYTHONPATH": str(_FOLDER), "SHIFTED_CLOCK": str(self._file(name))}
        return from_scratch(program, arguments, cwd=cwd, log=log, env={**env, **shifted})
