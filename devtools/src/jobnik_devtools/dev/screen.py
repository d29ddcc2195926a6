"""What the person who started it sees: every program's lines, told apart by their beginning."""

import os
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal, TextIO

import structlog
from pydantic import BaseModel

from jobnik_devtools.dev.places import HOST, Places

_OWN: Final = "dev"
_WIDTH: Final = len("manager")
_COLOURS: Final = {"manager": "34", "worker": "32", "seed": "35", _OWN: "1"}
"""As terminals number them: blue, green, magenta, bold."""
_RED: Final = "31"
# A screen has less room than a log.
_LEFT_OUT: Final = {"logger", "trace_id", "span_id", "job_id", "stage_id", "exc_info"}
_LAST: Final = ("stage_type", "attempt", "task_id")
"""What all lines of a task have in common."""


class Screen:
    """Writes to a terminal, in colour, or to something else."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colours = out.isatty() and not os.environ.get("NO_COLOR")
        self._render = structlog.dev.ConsoleRenderer(
            colors=self._colours,
            pad_event_to=0,
            pad_level=False,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )

    def line(self, name: str, line: str) -> None:
        """Show a line of a program's; one of its log, which is JSON, as people read it."""
        try:
            text = self._pretty(_Event.model_validate_json(line))
        except ValueError:
            text = line
        for part in text.splitlines() or [""]:
            self._write(name, part)

    def say(self, text: str) -> None:
        """Say something of our own."""
        self._write(_OWN, text)

    def trouble(self, text: str) -> None:
        """Say what is wrong."""
        self._write(_OWN, self._coloured(text, _RED))

    def welcome(self, places: Places) -> None:
        """Say what runs where, and what to try next."""
        probes = f"http://{HOST}:{places.probe_port}"
        data = places.data.relative_to(places.project) if places.data.is_relative_to(places.project) else places.data
        lines = [
            "",
            f"  API page   {places.manager}/docs",
            f"  jobs       {places.manager}/v1/jobs?should_return_stages=true",
            f"  probes     {probes}/readyz",
            f"  metrics    {probes}/metrics",
            f"  data       {data} (remove it to begin anew)",
            "",
            f"  Edit src/{places.package}/handlers.py, and the worker starts anew with what you save.",
        ]
        if places.seed.exists():
            lines += [
                f"  Edit {places.seed.name}, and it creates another job. So does this, in another terminal:",
                f"    JOBNIK_BASE_URL={places.manager} uv run python {places.seed.name}",
            ]
        lines += ["  Ctrl-C ends everything.", ""]
        for line in lines:
            self._print(line)

    def _pretty(self, event: "_Event") -> str:
        said = event.model_dump(exclude_unset=True) | {"timestamp": f"{event.timestamp.astimezone():%H:%M:%S}"}
        shown = {key: value for key, value in said.items() if key not in _LEFT_OUT and key not in _LAST}
        return self._render(None, "", shown | {key: said[key] for key in _LAST if key in said})

    def _write(self, name: str, text: str) -> None:
        start = self._coloured(f"{name:<{_WIDTH}} |", _COLOURS[name])
        self._print(f"{start} {text}")

    def _print(self, text: str) -> None:
        with suppress(OSError):  # a terminal may be closed while the programs end
            self._out.write(f"{text.rstrip()}\n")
            self._out.flush()

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


class _Event(BaseModel, extra="allow"):
    """A line of a log that the renderer understands."""

    timestamp: datetime
    level: Literal["critical", "error", "warning", "info", "debug"]
    event: str
    exception: str = ""
    stack: str = ""
