"""Structured logs: coloured text on a terminal, otherwise one JSON object per line.

The standard library's `logging` writes to the same output, in the same format.
"""

import logging
import sys
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, Protocol

import structlog
from opentelemetry.trace import get_current_span
from structlog.typing import EventDict, Processor, WrappedLogger

from jobnik_sdk.observability.secrets import mask_passwords

__all__ = [
    "configure_logging",
]


class LoggedTask(Protocol):
    """A task whose ids are added to log lines."""

    @property
    def ids(self) -> dict[str, str | int]:
        """The fields that identify the task and its attempt."""
        ...


# The task itself, not its ids in structlog's context variables: building the ids costs more than most log lines.
_current_task: ContextVar[LoggedTask | None] = ContextVar("jobnik_task", default=None)


def bind_task(task: LoggedTask) -> None:
    """Add the ids of `task` to every further log line of the current context (an asyncio task, a process)."""
    _current_task.set(task)


def _add_task_ids(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    task = _current_task.get()
    return line if task is None else {**task.ids, **line}


def _add_trace(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    span = get_current_span().get_span_context()
    if span.is_valid:
        line["trace_id"] = f"{span.trace_id:032x}"
        line["span_id"] = f"{span.span_id:016x}"
    return line


def _mask_passwords(_logger: WrappedLogger, _method: str, line: Any) -> str:  # noqa: ANN401 a rendered line
    return mask_passwords(line)


_SHARED: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    _add_task_ids,
    _add_trace,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logging(level: str = "INFO") -> None:
    """Write logs to standard output. Call it once, when the program starts; `run` does so for a worker.

    On a terminal a line is coloured text, otherwise a JSON object. structlog, the standard library's `logging` and
    Python warnings all write to the same output.

    Args:
        level: The lowest level that is written: DEBUG, INFO, WARNING, ERROR or CRITICAL.

    Raises:
        ValueError: the level is unknown.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_formatter(terminal=sys.stdout.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    # httpx2 logs every request at INFO, which the SDK's own log lines and metrics already cover.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


class RuntimeLogger:
    """The logger of a module whose work must continue when a log line cannot be written.

    The output may be closed or full, or a processor of the application may raise an exception. The line is then lost.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)

    def info(self, event: str, **fields: object) -> None:
        """Log an event that is part of normal operation."""
        with suppress(Exception):
            self._logger.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log an event that an operator may have to act on."""
        with suppress(Exception):
            self._logger.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Log an event that an operator has to act on."""
        with suppress(Exception):
            self._logger.error(event, **fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log an unexpected error, with the traceback of the exception that is being handled."""
        with suppress(Exception):
            self._logger.exception(event, **fields)  # noqa: LOG004 called in an exception handler

    def is_enabled(self, level: int) -> bool:
        """Return whether a line of this level would be written, however the application has configured structlog."""
        bound: Any = self._logger.bind()
        enabled = getattr(bound, "is_enabled_for", None) or getattr(bound, "isEnabledFor", None)
        return enabled is None or bool(enabled(level))


def configured_level() -> str | None:
    """Return the level given to `configure_logging`; None if it was not called. Handler processes use the same."""
    root = logging.getLogger()
    if any(isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter) for handler in root.handlers):
        return logging.getLevelName(root.level)
    return None


def _formatter(*, terminal: bool) -> logging.Formatter:
    renderers: list[Processor]
    if terminal:
        # Not the tracebacks of rich, which show local variables.
        renderers = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers, _mask_passwords],
    )
