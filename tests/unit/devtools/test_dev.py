"""The parts of `jobnik_devtools.dev`: the screen, the configuration, the watcher and the programs."""

import io
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from jobnik_devtools.dev.__main__ import main
from jobnik_devtools.dev.config import MAX_PORT, DevConfig
from jobnik_devtools.dev.programs import Programs
from jobnik_devtools.dev.screen import Screen
from jobnik_devtools.dev.watcher import Watcher
from jobnik_sdk import ConfigurationError
from watchfiles import Change

from tools.ports import free_port

IDS = {"logger": "a.b", "trace_id": "1" * 32, "span_id": "2" * 16, "job_id": "3", "stage_id": "4"}


class Terminal(io.StringIO):
    """A terminal that records its output."""

    def isatty(self) -> bool:
        """Return True."""
        return True


class ClosedTerminal(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str, /) -> int:
        """Fail."""
        raise BrokenPipeError(text)


def shown(*lines: str, name: str = "worker", out: io.StringIO | None = None) -> str:
    """Return what the screen shows for the lines of a program."""
    out = out or io.StringIO()
    screen = Screen(out)
    for line in lines:
        screen.line(name, line)
    return out.getvalue()


def log_line(**fields: object) -> str:
    """Return a log line as the SDK writes it."""
    return json.dumps({"timestamp": "2026-01-02T03:04:05.6Z", "level": "info", "event": "thumbnail made"} | fields)


def test_log_line_is_formatted() -> None:
    """The time of day, the event, its own fields, then those of the task. Fields for tracing are hidden."""
    text = shown(log_line(task_id="5", attempt=1, width=256, **IDS))

    assert text.startswith("worker  | ")
    assert text.endswith(":04:05 [info] thumbnail made width=256 attempt=1 task_id=5\n")
    assert "2026" not in text


def test_traceback_follows_its_log_line() -> None:
    """Each line of the traceback has the name of the program."""
    text = shown(log_line(level="error", event="task failed", exception="Traceback\n  File\nValueError: no"))

    assert [line.partition("| ")[2] for line in text.splitlines()[1:]] == ["Traceback", "  File", "ValueError: no"]


@pytest.mark.parametrize(
    "line",
    [
        "plain",
        "  indented, as in a traceback",
        '{"no": "event"}',
        "[1, 2]",
        log_line(level=30),
        log_line(exception=[{"exc_type": "ValueError"}]),
        log_line(timestamp="yesterday"),
    ],
)
def test_other_line_is_shown_unchanged(line: str) -> None:
    """Not every line is JSON, and not all JSON is a log line of the SDK."""
    assert shown(line, name="seed") == f"seed    | {line}\n"


def test_empty_line_is_kept() -> None:
    """Empty lines are shown, and trailing spaces are removed."""
    assert shown("", "x  ") == "worker  |\nworker  | x\n"


def test_only_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only if NO_COLOR is not set."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mworker  |\x1b[0m x" in shown("x", out=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown("x", log_line(), out=Terminal())


def test_closed_terminal_is_ignored() -> None:
    """The programs must still be stopped."""
    Screen(ClosedTerminal()).info("x")


def test_welcome_shows_what_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses, the data folder relative to the project, and the seed if there is one."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("JOBNIK_MANAGER_DATA_DIR", raising=False)
    out = io.StringIO()
    config = DevConfig(tmp_path, "my_worker", 9000)

    Screen(out).welcome(config)
    assert "http://127.0.0.1:9000/docs\n" in out.getvalue()
    assert "http://127.0.0.1:9001/metrics\n" in out.getvalue()
    assert " .dev/manager (" in out.getvalue()
    assert "src/my_worker/handlers.py" in out.getvalue()
    assert "seed" not in out.getvalue()

    (tmp_path / "seed.py").touch()
    Screen(out).welcome(config)
    assert "    JOBNIK_BASE_URL=http://127.0.0.1:9000 uv run python seed.py\n" in out.getvalue()


def test_data_folder_is_accessible_to_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project; for root in a folder per project elsewhere; or where the manager's variable says."""
    one, other = (DevConfig(tmp_path / name / "project", "p", 9000) for name in ("one", "other"))
    monkeypatch.delenv("JOBNIK_MANAGER_DATA_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert one.data == one.project / ".dev" / "manager"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert one.data.parent == Path("/var/lib/jobnik-dev")
    assert one.data != other.data

    monkeypatch.setenv("JOBNIK_MANAGER_DATA_DIR", "/data")
    assert one.data == Path("/data")


def test_port_in_use_is_an_error(tmp_path: Path) -> None:
    """The message names the port, what it is for, and how to choose other ports."""
    port = free_port(2)
    message = f"Port {port + 1} for the worker's probes is not available: .*PORT="
    with socket.create_server(("127.0.0.1", port + 1)), pytest.raises(ConfigurationError, match=message):
        DevConfig(tmp_path, "p", port).check_ports()


@pytest.mark.parametrize("port", ["0", str(MAX_PORT + 1), "http"])
def test_invalid_port_is_refused(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The port must be a number, and leave room for the port of the probes."""
    monkeypatch.setattr(sys, "argv", ["dev", "--port", port, "my_worker"])

    with pytest.raises(SystemExit):
        main()
    assert "--port" in capsys.readouterr().err


async def test_watcher_ignores_files_of_python_and_editors(tmp_path: Path) -> None:
    """Sources are relevant, even if the project is below a folder that watchfiles ignores."""
    project = tmp_path / "node_modules" / "project"
    (project / "src" / "p").mkdir(parents=True)
    watcher = Watcher(project, project / "seed.py", Screen(io.StringIO()))
    assert watcher.is_relevant(Change.modified, str(project / "src" / "p" / "handlers.py"))
    for name in ("__pycache__/handlers.cpython-313.pyc", "handlers.pyc", ".handlers.py.swp", "handlers.py~"):
        assert not watcher.is_relevant(Change.added, str(project / "src" / "p" / name))


async def test_program_ends_with_its_child_processes(tmp_path: Path) -> None:
    """All of its output is shown, and the processes that it started end with it."""
    out = io.StringIO()
    child = "import subprocess; subprocess.Popen(['sleep', '60']); print('a line'); print('the end', end='')"
    async with Programs(tmp_path, Screen(out)).running("seed", [sys.executable, "-c", child], {}) as program:
        assert await program.wait() == 0

    # An unfinished line is shown once no process is left that could continue it.
    assert out.getvalue() == "seed    | a line\nseed    | the end\n"


async def test_stop_now_kills_a_program_that_ignores_sigterm(tmp_path: Path) -> None:
    """The urgent signal is SIGKILL by default."""
    programs = Programs(tmp_path, Screen(io.StringIO()))
    child = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    async with programs.running("worker", [sys.executable, "-c", child], {}) as program:
        programs.stop_now()
        assert await program.wait() == -signal.SIGKILL
