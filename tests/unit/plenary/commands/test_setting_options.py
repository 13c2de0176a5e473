"""Options from the settings: all of them, and what is wrong said in words that name them."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from plenary import cli
from plenary.commands import setting_options
from plenary.processes import event_loop
from shared.settings import Common, GatewaySettings, NodeSettings, RunSettings, WorkerSettings
from shared.telemetry import log

ROOT = Path(__file__).parents[4]
runner = CliRunner()
KINDS: dict[str, type[Common]] = {
    "run": RunSettings,
    "gateway": GatewaySettings,
    "roomworker": WorkerSettings,
    "medianode": NodeSettings,
}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")


@pytest.mark.parametrize("command", KINDS)
def test_every_setting_is_an_option_with_its_help(command: str) -> None:
    said = runner.invoke(cli.app, [command, "--help"]).output
    for field, info in KINDS[command].model_fields.items():
        assert f"--{field.replace('_', '-')} " in said
        assert info.description
        assert info.description.split("`")[0].split(";")[0][:60] in said
    assert "none)" not in said


def given(*arguments: str) -> dict[str, Any]:
    """Returns what a command with a gateway's options gets for these arguments."""
    seen: dict[str, Any] = {}
    app = typer.Typer()
    app.command()(setting_options.with_options(GatewaySettings, seen.update, "about"))
    assert runner.invoke(app, list(arguments)).exit_code == 0
    return seen


def test_only_typed_options_are_passed_on() -> None:
    assert given() == {}
    assert given("--port", "0", "--message-rate", "2.5", "--page", "") == {
        "port": 0,
        "message_rate": 2.5,
        "page": "",
    }


def test_typed_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLENARY_PORT", "1")
    monkeypatch.setenv("PLENARY_API_PORT", "2")
    settings = setting_options.settings(GatewaySettings, {"port": 3})
    assert (settings.port, settings.api_port, settings.frame_limit) == (3, 2, 262144)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("run --redis-url redis://h", "--redis-url and --amqp-url belong together"),
        ("gateway --tls-cert a.pem", "--tls-cert and --tls-key belong together"),
        ("medianode --listen-ip localhost", "--listen-ip: expected an IP address, not a name"),
        ("medianode --listen-ip=", "--listen-ip: expected an IP address"),
        ("medianode --rtc-min-port 5000 --rtc-max-port 4000", "--rtc-min-port is above --rtc-max-port"),
        ("gateway --redis-url redis", "--redis-url: expected a URL like redis://HOST:6379/0"),
        ("gateway --redis-url redis://h:port/0", "--redis-url: expected a URL"),
        ("gateway --amqp-url http://h", "--amqp-url: expected a URL like amqp://"),
        ("roomworker --queue-type mirrored", "--queue-type: Input should be 'classic' or 'quorum'"),
        ("gateway --port 99999", "--port: Input should be less than or equal to 65535"),
    ],
)
def test_invalid_option_is_reported_as_a_sentence(command: str, reason: str) -> None:
    result = runner.invoke(cli.app, command.split())
    assert result.exit_code == 2
    assert reason in result.output
    assert "Traceback" not in result.output


def test_invalid_variable_is_reported_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLENARY_PORT", "x")
    result = runner.invoke(cli.app, ["gateway"])
    assert "PLENARY_PORT: Input should be a valid integer" in result.output


def test_password_is_never_repeated() -> None:
    result = runner.invoke(cli.app, ["gateway", "--amqp-url", "http://user:secret@host"])
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_version_option_prints_the_version() -> None:
    result = runner.invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("plenary 0.")


def test_documented_settings_and_defaults_are_current() -> None:
    text = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `PLENARY_")]
    defaults = {cells[0].strip("| `"): cells[1].strip("`") for cells in rows}
    for kind in (GatewaySettings, WorkerSettings, NodeSettings):
        for field, info in kind.model_fields.items():
            told = defaults[f"PLENARY_{field.upper()}"]
            assert info.default in ("", None) or told == str(info.default)


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("PLENARY_REDIS_ULR", "PLENARY_REDIS_URL"),
        ("PLENARY_GRACE_SECOND", "PLENARY_GRACE_SECONDS"),
        ("plenary_amqp", "PLENARY_AMQP_URL"),
        ("PLENARY_ZZZZZZZZZZ", ""),
    ],
)
def test_mistyped_variable_is_found_with_the_nearest_name(variable: str, nearest: str) -> None:
    assert setting_options.unknown_variables([variable, "HOME", "PLENARY_REDIS_URL"]) == {variable: nearest}


def test_every_variable_of_the_compose_file_is_known() -> None:
    names = re.findall(r"PLENARY_[A-Z_]+", (ROOT / "docker-compose.yml").read_text())
    assert names
    assert setting_options.unknown_variables(names) == {}


@pytest.mark.parametrize("command", [*KINDS, "status"])
def test_mistyped_variable_is_warned_about_at_start(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setenv("PLENARY_REDIS_ULR", "redis://user:secret@nowhere/")
    monkeypatch.setattr(event_loop, "run", lambda _: None)
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)
    monkeypatch.setattr(
        setting_options, "logger", SimpleNamespace(warning=lambda event, **keys: lines.append((event, keys)))
    )
    assert runner.invoke(cli.app, [command]).exit_code == 0
    assert lines == [("setting.unknown", {"variable": "PLENARY_REDIS_ULR", "nearest": "PLENARY_REDIS_URL"})]


def test_shell_completes_the_names_of_commands() -> None:
    words = {"_PLENARY_COMPLETE": "complete_bash", "COMP_WORDS": "plenary stat", "COMP_CWORD": "1"}
    assert runner.invoke(cli.app, [], prog_name="plenary", env=words).output.split() == ["status"]
