"""Configuration of logs."""

import asyncio
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn

import pytest
import structlog
from jobnik_sdk import configure_logging
from jobnik_sdk.observability import trace_context
from jobnik_sdk.observability.logging import RuntimeLogger, configured_level, write_line


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_lines_are_json_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is a JSON object with its exception, for structlog as for the standard library."""
    configure_logging("INFO")
    with structlog.contextvars.bound_contextvars(task_id="7"):
        structlog.get_logger("mine").info("picture read", size=3)
        try:
            int("broken")
        except ValueError:
            logging.getLogger("theirs").exception("reading %s failed", "a.png", extra={"attempt": 2})
    mine, theirs = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (mine["event"], mine["size"], mine["task_id"], mine["level"], mine["logger"]) == (
        "picture read",
        3,
        "7",
        "info",
        "mine",
    )
    assert mine["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["attempt"], theirs["task_id"]) == ("reading a.png failed", 2, "7")
    assert "ValueError: invalid literal" in theirs["exception"]


def test_lines_on_a_terminal_are_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a line is not JSON."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    configure_logging("INFO")
    structlog.get_logger("mine").info("picture read")
    line = capsys.readouterr().out
    assert "picture read" in line
    assert not line.startswith("{")


def test_level_applies(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines below the level are not written, and handler processes can use the same level."""
    assert configured_level() is None
    configure_logging("WARNING")
    structlog.get_logger("mine").info("unimportant")
    logging.getLogger("theirs").info("unimportant")
    assert capsys.readouterr().out == ""
    assert configured_level() == "WARNING"


def test_lines_have_the_ids_of_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """A line within a trace has the ids of the trace and the span; a line outside has none."""
    configure_logging("INFO")
    with trace_context.use_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        structlog.get_logger("mine").info("within")
        logging.getLogger("theirs").info("within")
    structlog.get_logger("mine").info("outside")
    mine, theirs, outside = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    for line in (mine, theirs):
        assert (line["trace_id"], line["span_id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert not {"trace_id", "span_id"} & outside.keys()


def test_warnings_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """Python warnings are log lines."""
    configure_logging("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("this will change", stacklevel=1)
    (line,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert line["logger"] == "py.warnings"
    assert "this will change" in line["event"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_no_log_line_stops_the_runtime(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a processor or an output of the application raises, only the line is lost."""

    def fail(*_: object) -> NoReturn:
        raise error

    configure_logging()
    logger = RuntimeLogger("runtime")
    monkeypatch.setattr(logging.getLogger().handlers[0], "emit", fail)
    logger.warning("lost")
    write_line("lost")
    structlog.configure(processors=[fail])
    logger.info("lost")
    logger.warning("lost")
    logger.error("lost")
    logger.exception("lost")  # noqa: LOG004 it has no traceback here


def test_logs_can_be_configured_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has no standard output if it was closed when the program started."""
    monkeypatch.setattr(sys, "stdout", None)
    configure_logging()
    RuntimeLogger("runtime").warning("lost")
    write_line("lost")
