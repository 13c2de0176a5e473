"""The image's stage that makes the engine has all that the toolchain imports, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


def copied(target: Path) -> set[str]:
    """Copies what the stage copies of this repository's Python files. Returns their paths."""
    dockerfile = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stage = re.search(r"^FROM tools AS engine\n(.*?)^FROM", dockerfile, re.MULTILINE | re.DOTALL)
    assert stage
    paths = set()
    for line in re.findall(r"^COPY (medianode/.*)$", stage[1], re.MULTILINE):
        *patterns, place = line.split()
        if place.startswith("/"):
            continue
        for source in (path for pattern in patterns for path in ROOT.glob(pattern)):
            files = sorted(source.rglob("*")) if source.is_dir() else [source]
            for file in (file for file in files if file.is_file() and "__pycache__" not in file.parts):
                path = file.relative_to(ROOT)
                assert str(path.parent).startswith(place.rstrip("/"))
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / path)
                paths.add(str(path))
    return paths


def imported(folder: Path) -> set[str]:
    """The files below `folder` that the installation of the engine imports. It fails if others of ours are needed."""
    program = (
        "import sys, medianode.toolchain.install, medianode.toolchain.handshake\n"
        "print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    ours = [file for file in files if file.is_relative_to(ROOT) and "site-packages" not in file.parts]
    assert not ours, "not in the stage"
    return {str(file.relative_to(folder)) for file in files if file.is_relative_to(folder)}


def test_stage_has_what_the_toolchain_imports_and_nothing_else(tmp_path: Path) -> None:
    there = {path for path in copied(tmp_path) if path.endswith(".py")}
    assert there == imported(tmp_path)


def test_stage_has_the_headers(tmp_path: Path) -> None:
    headers = {path for path in copied(tmp_path) if path.endswith(".h")}
    assert headers == {"medianode/toolchain/srtp3_on_libsrtp2.h", "medianode/toolchain/unordered_dense.h"}
