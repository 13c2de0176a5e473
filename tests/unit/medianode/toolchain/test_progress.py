"""The progress of a build where no terminal shows bars."""

import io

from rich.console import Console

from medianode.toolchain.progress import Report


def test_plain_progress_is_a_line_every_tenth() -> None:
    out = io.StringIO()
    with Report(Console(file=out, width=200)).step("Compile") as step:
        for done in range(1, 101):
            step.advance(done, 100)
    lines = out.getvalue().splitlines()
    assert lines[0] == "Compile"
    assert lines[1] == "Compile: 10% (10/100)"
    assert len(lines) == 11
