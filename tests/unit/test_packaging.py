"""The distribution: what it is called, and what installs it."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from shared import version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLS_OTHERS_PLENARY = re.compile(
    r"""\b(?:pip|pipx|uv|poetry|pdm)\b[\w\s-]*?\b(?:install|add)\s+(?:-\S+\s+)*["']?plenary(?![\w-])"""
)


def tracked_text() -> dict[str, str]:
    """Every text file of the repository by its path."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    texts: dict[str, str] = {}
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__):
            try:
                texts[name] = path.read_text()
            except UnicodeDecodeError:
                continue
    return texts


def test_distribution_is_not_named_like_the_other_plenary_on_pypi() -> None:
    assert PROJECT["name"] == version.DISTRIBUTION == "plenary-signaling"
    assert PROJECT["scripts"] == {"plenary": "plenary.cli:main"}
    own = [
        text for extra in PROJECT["optional-dependencies"].values() for text in extra if text.startswith("plenary")
    ]
    assert all(text.startswith("plenary-signaling[") for text in own)


@pytest.mark.parametrize(
    "command",
    ["pip install plenary", "pip install -U plenary", "pip install 'plenary[embedded]'", "uv tool install plenary"],
)
def test_pattern_finds_commands_that_install_the_other_plenary(command: str) -> None:
    assert INSTALLS_OTHERS_PLENARY.search(command)
    assert not INSTALLS_OTHERS_PLENARY.search(command.replace("plenary", "plenary-signaling"))


def test_no_file_tells_anybody_to_install_the_other_plenary() -> None:
    found = {name for name, text in tracked_text().items() if INSTALLS_OTHERS_PLENARY.search(text)}
    assert not found


def test_version_is_unknown_where_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "installed_version", not_installed)
    assert version.version() == "unknown"


def test_lock_file_is_of_the_requirements_in_pyproject() -> None:
    """The test needs no network; `uv sync --locked` compares everything else."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    [own] = [package for package in lock["package"] if package["name"] == PROJECT["name"]]
    locked = {(entry["name"], entry.get("specifier", "")) for entry in own["metadata"]["requires-dist"]}
    wanted = {_name_and_specifier(text) for text in _all_requirements()}
    assert {name for name, _ in wanted} == {name for name, _ in locked}
    assert {(name, frozenset(text.split(","))) for name, text in wanted} == {
        (name, frozenset(text.split(","))) for name, text in locked
    }
    assert lock["requires-python"] == PROJECT["requires-python"]


def _all_requirements() -> Iterator[str]:
    yield from PROJECT["dependencies"]
    for extra in PROJECT["optional-dependencies"].values():
        yield from extra


def _name_and_specifier(text: str) -> tuple[str, str]:
    requirement = Requirement(text)
    return requirement.name, str(requirement.specifier)


def test_makefile_and_image_use_the_same_uv_version() -> None:
    in_makefile = re.search(r"^UV_VERSION := ([\d.]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    in_image = re.search(r"^ARG UV_VERSION=([\d.]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert in_makefile
    assert in_image
    assert in_makefile[1] == in_image[1]


def images() -> list[str]:
    """The images of others that Dockerfile and compose name."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", dockerfile, re.MULTILINE))
    based_on = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) - stages
    return sorted(based_on | {service["image"] for service in services.values() if "image" in service})


@pytest.mark.parametrize("image", images())
def test_images_are_pinned_to_a_release(image: str) -> None:
    assert re.search(r":(v?\d+\.\d+\.\d+|bookworm-\d{8})(-|$)", image)


def test_image_runs_as_a_numeric_user_who_is_not_root() -> None:
    users = re.findall(r"^USER (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users)


def test_commit_hooks_are_local_and_run_make_check() -> None:
    """Hooks of other repositories would be cloned from places that some machines cannot reach."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    assert [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]] == ["make check"]


def test_ci_checks_every_python_that_the_package_claims() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    tested = set(jobs["check"]["strategy"]["matrix"]["python"])
    claimed = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert claimed <= tested
