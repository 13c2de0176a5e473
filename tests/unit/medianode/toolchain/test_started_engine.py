"""An engine is started and spoken to; whatever it does wrong is told with a reason, and no process is left."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from medianode.toolchain import started_engine
from medianode.toolchain.errors import EngineUnavailable
from medianode.toolchain.started_engine import StartedEngine

Make = Callable[[str], Path]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_engine_runs_inside_the_context_and_not_after_it(engine: Make, schemas: Path) -> None:
    with StartedEngine(engine("run(); ask()"), schemas) as started:
        pid = started.pid
        assert alive(pid)
    assert not alive(pid)


def test_engine_is_ended_when_the_context_fails(engine: Make, schemas: Path) -> None:
    pids = []

    def fail() -> None:
        with StartedEngine(engine("run(); ask()"), schemas) as started:
            pids.append(started.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not alive(pids[0])


def test_request_returns_the_body_of_its_own_answer(engine: Make, schemas: Path) -> None:
    binary = engine("""
run()
asked = ask()
tell("Log", data="Dsomething")
tell("Notification", handler_id="transport", event="STATE", body=("StateChange", {"phase": "CONNECTED"}))
tell("Response", id=asked["id"] - 1, accepted=True)
name = asked["body"][1]["name"] + asked["handler_id"]
tell("Response", id=asked["id"], accepted=True, body=("Named", {"name": name}))
tell("Response", id=ask()["id"], accepted=True)
ask()
""")
    with StartedEngine(binary, schemas) as started:
        assert started.request("WORKER_CREATE_ROUTER", "x", ("Named", {"name": "a"})) == {"name": "ax"}
        assert started.request("WORKER_DUMP") == {}
        assert started.wait_for("STATE", "transport", phase="CONNECTED")["handler_id"] == "transport"


def test_waiting_skips_other_events_handlers_and_fields(engine: Make, schemas: Path) -> None:
    binary = engine("""
run()
for handler, phase in ("other", "CONNECTED"), ("mine", "NEW"), ("mine", "CONNECTED"):
    tell("Notification", handler_id="mine", event="OTHER")
    tell("Notification", handler_id=handler, event="STATE", body=("StateChange", {"phase": phase}))
ask()
""")
    with StartedEngine(binary, schemas) as started:
        found = started.wait_for("STATE", "mine", phase="CONNECTED")
        assert (found["handler_id"], found["body"][1]) == ("mine", {"phase": "CONNECTED"})
        assert started.wait_for("STATE", "mine")["body"][1] == {"phase": "NEW"}


def test_refused_request_names_method_and_reason(engine: Make, schemas: Path) -> None:
    binary = engine('run(); tell("Response", id=ask()["id"], error="Error", reason="no such thing"); ask()')
    with (
        pytest.raises(EngineUnavailable, match="refuses WORKER_DUMP: no such thing"),
        StartedEngine(binary, schemas) as started,
    ):
        started.request("WORKER_DUMP")


def test_engine_that_cannot_be_executed_is_named(schemas: Path) -> None:
    with (
        pytest.raises(EngineUnavailable, match="/absent cannot be started: "),
        StartedEngine(Path("/absent"), schemas),
    ):
        pass


def test_engine_that_ends_is_told_with_code_and_output(shell_engine: Make, schemas: Path) -> None:
    binary = shell_engine("echo libuv.so.1 is missing >&2; exit 127")
    with (
        pytest.raises(EngineUnavailable, match=r"ended with code 127: libuv\.so\.1 is missing"),
        StartedEngine(binary, schemas),
    ):
        pass


def test_engine_that_crashes_under_a_request_is_told_with_its_signal(engine: Make, schemas: Path) -> None:
    binary = engine("run(); ask(); print('assertion failed', flush=True); os.abort()")
    with (
        pytest.raises(EngineUnavailable, match="was ended by signal 6: assertion failed"),
        StartedEngine(binary, schemas) as started,
    ):
        started.request("WORKER_DUMP")


def test_silent_engine_is_told_and_ended(
    shell_engine: Make, schemas: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(started_engine, "_TIMEOUT", 0.2)
    binary = shell_engine(f"echo $$ >{tmp_path}/pid; exec cat <&3")
    with pytest.raises(EngineUnavailable, match="did not send WORKER_RUNNING within"), StartedEngine(binary, schemas):
        pass
    assert not alive(int((tmp_path / "pid").read_text()))


def test_engine_that_closes_its_channel_and_lives_on_is_ended(
    shell_engine: Make, schemas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(started_engine, "_EXIT_TIMEOUT", 0.1)
    binary = shell_engine("exec 3>&- 4>&-; exec sleep 60")
    with pytest.raises(EngineUnavailable, match="was ended by signal 9"), StartedEngine(binary, schemas):
        pass


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (r"\071\000\000\000incomplete", "did not send WORKER_RUNNING"),
        (r"\377\377\377\177", "a frame of 2147483647 bytes"),
        (r"\042\000\000\000{\"targetId\":\"1\",\"event\":\"running\"}   ", "does not speak as mediasoup-worker 3"),
    ],
)
def test_engine_that_sends_no_flatbuffers_is_refused(
    sent: str, why: str, shell_engine: Make, schemas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(started_engine, "_TIMEOUT", 0.2)
    binary = shell_engine(f"printf '{sent}' >&4; exec cat <&3")
    with pytest.raises(EngineUnavailable, match=why), StartedEngine(binary, schemas):
        pass


def test_first_message_of_another_process_is_refused(engine: Make, schemas: Path) -> None:
    binary = engine('tell("Notification", handler_id="1", event="WORKER_RUNNING"); ask()')
    with pytest.raises(EngineUnavailable, match="names another process"), StartedEngine(binary, schemas):
        pass


def test_failing_starts_leave_no_open_files(shell_engine: Make, schemas: Path) -> None:
    binary = shell_engine("exit 1")

    def fail() -> int:
        with pytest.raises(EngineUnavailable), StartedEngine(binary, schemas):
            pass
        return len(os.listdir("/proc/self/fd"))

    assert fail() == fail() == fail()
