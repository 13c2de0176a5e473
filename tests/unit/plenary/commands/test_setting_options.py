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
from shared.settings import SECRETS, Common, GatewaySettings, NodeSettings, RunSettings, WorkerSettings
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
        ("gateway --redis-url redis://h/abc", "what follows the host is the number of a database"),
        ("gateway --redis-url redis://h/0/1", "what follows the host is the number of a database"),
        ("gateway --redis-url redis:///0", "there is no host"),
        ("gateway --redis-url redis://h/0?db=x", "an option cannot be used: Invalid value for 'db'"),
        ("gateway --redis-url redis://h/0?colour=red", "an option cannot be used"),
        ("gateway --amqp-url amqp://h/?cafile=ca.pem", "only amqps:// speaks TLS"),
        ("gateway --amqp-url amqps://h/?keyfile=k.pem", "keyfile in a RabbitMQ address needs a certfile"),
        ("medianode --announced-ip 0.0.0.0", "--announced-ip: clients cannot send to 0.0.0.0"),
        ("medianode --announced-ip ::", "--announced-ip: clients cannot send to ::"),
        ("medianode --announced-ip 224.0.0.1", "--announced-ip: clients cannot send to 224.0.0.1"),
        ("medianode --announced-ip [2001:db8::1]", "IPv6 without brackets"),
        ("gateway --redis-trim-at 0.9 --redis-refuse-at 0.8", "--redis-trim-at is above --redis-refuse-at"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["--amqp-url", "http://user:secret@host"],
        ["--redis-url", "redis://user:secret@host/abc"],
        ["--redis-url", "redis://user:secret#1@host/0"],
        ["--redis-url", "redis://user:secret@host/0?db=secret"],
    ],
)
def test_password_is_never_repeated(arguments: list[str]) -> None:
    result = runner.invoke(cli.app, ["gateway", *arguments])
    assert result.exit_code == 2
    assert "secret" not in result.output


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "redis://:p%23w@[::1]:6380/15",
        "rediss://h/0?ssl_ca_certs=/ca.pem",
        "unix:///r.sock?db=1",
    ],
)
def test_usual_redis_urls_are_taken(url: str) -> None:
    assert Common(redis_url=url).redis_url == url


def test_brackets_of_an_ipv6_address_to_listen_on_are_removed() -> None:
    settings = GatewaySettings(host="[::1]", api_host="[::]", metrics_host="::1")
    assert (settings.host, settings.api_host, settings.metrics_host) == ("::1", "::", "::1")


# --- secrets in files -------------------------------------------------------------------------------------------


def test_secret_is_read_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for field, secret in (("api_key", "s3cret"), ("redis_url", "redis://:p@h/1"), ("amqp_url", "amqp://u:p@h/v")):
        file = tmp_path / field
        file.write_text(f"{secret}\n")
        monkeypatch.setenv(f"PLENARY_{field.upper()}_FILE", str(file))
    settings = setting_options.settings(GatewaySettings, {})
    assert (settings.api_key, settings.redis_url, settings.amqp_url) == ("s3cret", "redis://:p@h/1", "amqp://u:p@h/v")
    assert setting_options.settings(GatewaySettings, {"api_key": "typed"}).api_key == "typed"
    assert setting_options.unknown_variables([f"PLENARY_{field.upper()}_FILE" for field in SECRETS]) == {}


def test_secret_given_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLENARY_API_KEY", "secret")
    monkeypatch.setenv("PLENARY_API_KEY_FILE", str(tmp_path))
    result = runner.invoke(cli.app, ["gateway"])
    assert result.exit_code == 2
    assert "PLENARY_API_KEY_FILE and PLENARY_API_KEY are both set" in result.output
    assert "secret" not in result.output.replace("secrets", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\nb\n", "has more than one line"),
        (b"\xff", "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("command", ["gateway", "rooms list"])
def test_secret_file_that_cannot_be_used_is_named(
    content: bytes | None, reason: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("PLENARY_API_KEY_FILE", str(file))
    result = runner.invoke(cli.app, command.split())
    assert result.exit_code in (1, 2)
    assert "PLENARY_API_KEY_FILE: " in result.output
    assert reason in result.output
    assert "Traceback" not in result.output


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
