"""`jobnik_devtools.dev` in its parts: what is shown, where things are, which changes count."""

import io
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from jobnik_devtools.dev.__main__ import main
from jobnik_devtools.dev.changes import Changes
from jobnik_devtools.dev.places import HIGHEST_PORT, Places
from jobnik_devtools.dev.programs import Programs
from jobnik_devtools.dev.screen import Screen
from jobnik_sdk import ConfigurationError
from watchfiles import Change

IDS = {"logger": "a.b", "trace_id": "1" * 32, "span_id": "2" * 16, "job_id": "3", "stage_id": "4"}


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        """Tell that it is one."""
        return True


class Closed(io.StringIO):
    """What nobody reads any more."""

    def write(self, text: str, /) -> int:
        """Fail."""
        raise BrokenPipeError(text)


def shown(*lines: str, name: str = "worker", out: io.StringIO | None = None) -> str:
    """Give what the screen makes of a program's lines."""
    out = out or io.StringIO()
    screen = Screen(out)
    for line in lines:
        screen.line(name, line)
    return out.getvalue()


def log_line(**fields: object) -> str:
    """Give a line as the SDK writes it."""
    return json.dumps({"timestamp": "2026-01-02T03:04:05.6Z", "level": "info", "event": "thumbnail made"} | fields)


def test_a_log_line_is_shown_for_people() -> None:
    """The time of day, the event, its own fields, then the task; what a trace needs is left out."""
    text = shown(log_line(task_id="5", attempt=1, width=256, **IDS))

    assert text.startswith("worker  | ")
    assert text.endswith(":04:05 [info] thumbnail made width=256 attempt=1 task_id=5\n")
    assert "2026" not in text


def test_a_traceback_stands_below_its_line() -> None:
    """Each of its lines says whose it is."""
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
def test_other_lines_are_shown_as_they_are(line: str) -> None:
    """Not everything that is JSON is a line of our log."""
    assert shown(line, name="seed") == f"seed    | {line}\n"


def test_an_empty_line_stays_one() -> None:
    """What a program spaces out stays so, with nothing at the end of its lines."""
    assert shown("", "x  ") == "worker  |\nworker  | x\n"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for those who want none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mworker  |\x1b[0m x" in shown("x", out=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown("x", log_line(), out=Terminal())


def test_a_closed_terminal_stops_nobody() -> None:
    """Programs still have to be ended when there is nobody left to tell."""
    Screen(Closed()).say("x")


def test_the_welcome_names_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses, the data from the project's view, and the seed where there is one."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("JOBNIK_MANAGER_DATA_DIR", raising=False)
    out = io.StringIO()
    places = Places(tmp_path, "my_worker", 9000)

    Screen(out).welcome(places)
    assert "http://127.0.0.1:9000/docs\n" in out.getvalue()
    assert "http://127.0.0.1:9001/metrics\n" in out.getvalue()
    assert " .dev/manager (" in out.getvalue()
    assert "src/my_worker/handlers.py" in out.getvalue()
    assert "seed" not in out.getvalue()

    (tmp_path / "seed.py").touch()
    Screen(out).welcome(places)
    assert "    JOBNIK_BASE_URL=http://127.0.0.1:9000 uv run python seed.py\n" in out.getvalue()


def test_data_lies_where_postgresql_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project; for root elsewhere, in a folder for each project; and where the manager's variable says."""
    one, other = (Places(tmp_path / name / "project", "p", 9000) for name in ("one", "other"))
    monkeypatch.delenv("JOBNIK_MANAGER_DATA_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert one.data == one.project / ".dev" / "manager"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert one.data.parent == Path("/var/lib/jobnik-dev")
    assert one.data != other.data

    monkeypatch.setenv("JOBNIK_MANAGER_DATA_DIR", "/data")
    assert one.data == Path("/data")


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """The message names the port and another one; at the end of all ports that is the usual one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {taken}, for the worker's probes, cannot be had: .*PORT="):
            Places(tmp_path, "p", taken - 1).check_ports()


@pytest.mark.parametrize("port", ["0", str(HIGHEST_PORT + 1), "http"])
def test_a_port_is_a_port(port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And the next one is one, too."""
    monkeypatch.setattr(sys, "argv", ["dev", "--port", port, "my_worker"])

    with pytest.raises(SystemExit):
        main()
    assert "--port" in capsys.readouterr().err


async def test_changes_that_count_are_told_apart(tmp_path: Path) -> None:
    """Sources and .env are the worker's, the seed is its own, and what Python and editors put down is nobody's."""
    # A name that watchfiles would leave out, with all that is below it.
    project = tmp_path / "node_modules" / "project"
    (project / "src" / "p").mkdir(parents=True)
    out = io.StringIO()
    changes = Changes(project, project / "seed.py", Screen(out))
    assert changes.counts(Change.modified, str(project / "src" / "p" / "handlers.py"))
    for name in ("__pycache__/handlers.cpython-313.pyc", "handlers.pyc", ".handlers.py.swp", "handlers.py~"):
        assert not changes.counts(Change.added, str(project / "src" / "p" / name))


async def test_a_program_leaves_nobody_behind(tmp_path: Path) -> None:
    """What it says is shown to the last word, and what it has started ends with it."""
    out = io.StringIO()
    child = "import subprocess; subprocess.Popen(['sleep', '60']); print('a line'); print('the end', end='')"
    async with Programs(tmp_path, Screen(out)).running("seed", [sys.executable, "-c", child], {}) as program:
        assert await program.wait() == 0

    # A line that nobody has finished is shown once nobody is left who could.
    assert out.getvalue() == "seed    | a line\nseed    | the end\n"


async def test_haste_ends_a_program_that_takes_its_time(tmp_path: Path) -> None:
    """Unless it is said otherwise, it is killed."""
    out = io.StringIO()
    programs = Programs(tmp_path, Screen(out))
    child = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); signal.pause()"
    async with programs.running("worker", [sys.executable, "-c", child], {}) as program:
        programs.hurry()
        assert await program.wait() == -signal.SIGKILL
