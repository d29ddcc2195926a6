"""The output of `make dev`: the lines of all programs, each with the name of its program."""

import os
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal, TextIO

import structlog
from pydantic import BaseModel

from jobnik_devtools.dev.config import HOST, DevConfig

_OWN: Final = "dev"
_WIDTH: Final = len("manager")
_COLOURS: Final = {"manager": "34", "worker": "32", "seed": "35", _OWN: "1"}
"""ANSI codes: blue, green, magenta, bold."""
_RED: Final = "31"
# Lines on a screen are shorter than lines in a log.
_HIDDEN: Final = {"logger", "trace_id", "span_id", "job_id", "stage_id", "exc_info"}
_LAST: Final = ("stage_type", "attempt", "task_id")
"""The fields that all lines about a task share. They are shown last."""


class Screen:
    """Writes to a terminal in colour, and to anything else without."""

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
        """Show a line of a program's output; format it if it is a log line in JSON."""
        try:
            text = self._pretty(_Event.model_validate_json(line))
        except ValueError:
            text = line
        for part in text.splitlines() or [""]:
            self._write(name, part)

    def info(self, text: str) -> None:
        """Show a message of `make dev` itself."""
        self._write(_OWN, text)

    def error(self, text: str) -> None:
        """Show an error message of `make dev` itself, in red."""
        self._write(_OWN, self._coloured(text, _RED))

    def welcome(self, config: DevConfig) -> None:
        """Show the addresses of what is running, and what to try next."""
        probes = f"http://{HOST}:{config.probe_port}"
        data = config.data.relative_to(config.project) if config.data.is_relative_to(config.project) else config.data
        lines = [
            "",
            f"  API page   {config.manager}/docs",
            f"  jobs       {config.manager}/v1/jobs?should_return_stages=true",
            f"  probes     {probes}/readyz",
            f"  metrics    {probes}/metrics",
            f"  data       {data} (delete it to start from scratch)",
            "",
            f"  Edit src/{config.package}/handlers.py: the worker restarts when you save.",
        ]
        if config.seed.exists():
            lines += [
                f"  Edit {config.seed.name}: it creates another job when you save. To run it in another terminal:",
                f"    JOBNIK_BASE_URL={config.manager} uv run python {config.seed.name}",
            ]
        lines += ["  Press Ctrl-C to stop everything.", ""]
        for line in lines:
            self._print(line)

    def _pretty(self, event: "_Event") -> str:
        fields = event.model_dump(exclude_unset=True) | {"timestamp": f"{event.timestamp.astimezone():%H:%M:%S}"}
        shown = {key: value for key, value in fields.items() if key not in _HIDDEN and key not in _LAST}
        return self._render(None, "", shown | {key: fields[key] for key in _LAST if key in fields})

    def _write(self, name: str, text: str) -> None:
        start = self._coloured(f"{name:<{_WIDTH}} |", _COLOURS[name])
        self._print(f"{start} {text}")

    def _print(self, text: str) -> None:
        with suppress(OSError):  # the terminal may be closed while the programs are ending
            self._out.write(f"{text.rstrip()}\n")
            self._out.flush()

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


class _Event(BaseModel, extra="allow"):
    """A log line that the renderer can format."""

    timestamp: datetime
    level: Literal["critical", "error", "warning", "info", "debug"]
    event: str
    exception: str = ""
    stack: str = ""
