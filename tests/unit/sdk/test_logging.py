"""Log lines."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest
import structlog
from jobnik_sdk import configure_logging
from jobnik_sdk.observability import trace_context
from jobnik_sdk.observability.logging import configured_level


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def test_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Off a terminal each line is one JSON object, with its exception, whoever logged it."""
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


def test_lines_on_a_terminal_are_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal there is no JSON."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    configure_logging("INFO")
    structlog.get_logger("mine").info("picture read")
    line = capsys.readouterr().out
    assert "picture read" in line
    assert not line.startswith("{")


def test_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines below the level are left out, and processes can be set up alike."""
    assert configured_level() is None
    configure_logging("WARNING")
    structlog.get_logger("mine").info("unimportant")
    logging.getLogger("theirs").info("unimportant")
    assert capsys.readouterr().out == ""
    assert configured_level() == "WARNING"


def test_lines_within_a_trace_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever logs it, a line names the trace and the span that it belongs to, and none outside of any."""
    configure_logging("INFO")
    with trace_context.use_trace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
        structlog.get_logger("mine").info("within")
        logging.getLogger("theirs").info("within")
    structlog.get_logger("mine").info("outside")
    mine, theirs, outside = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    for line in (mine, theirs):
        assert (line["trace_id"], line["span_id"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert not {"trace_id", "span_id"} & outside.keys()


def test_warnings_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What Python would write to standard error goes the same way."""
    configure_logging("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("this will change", stacklevel=1)
    (line,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert line["logger"] == "py.warnings"
    assert "this will change" in line["event"]
