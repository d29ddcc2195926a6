"""Log lines: coloured on a terminal, else one JSON object a line; the standard library's logging goes the same way."""

import logging
import sys
from contextvars import ContextVar
from typing import Any, Final, Protocol

import structlog
from opentelemetry.trace import get_current_span
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = [
    "configure_logging",
]


class TaskIds(Protocol):
    """A task, as far as log lines name it."""

    @property
    def ids(self) -> dict[str, str | int]:
        """The fields that identify the task and its attempt."""
        ...


# The task itself rather than its ids in structlog's own variables: building those costs more than most log lines.
_current_task: ContextVar[TaskIds | None] = ContextVar("jobnik_task", default=None)


def bind_task(task: TaskIds) -> None:
    """Add the ids of `task` to every log line in the rest of the current context (an asyncio task, a process)."""
    _current_task.set(task)


def _add_task_ids(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    task = _current_task.get()
    return line if task is None else {**task.ids, **line}


def _add_trace(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    place = get_current_span().get_span_context()
    if place.is_valid:
        line["trace_id"] = f"{place.trace_id:032x}"
        line["span_id"] = f"{place.span_id:016x}"
    return line


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
    """Send all log lines from `level` on to standard output, warnings of Python as well; call it once, at the start.

    Levels are those of the standard library: DEBUG, INFO, WARNING, ERROR, CRITICAL.
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
    # httpx2 tells of every request at INFO, which the SDK's own lines and metrics already do better.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def writes(logger: structlog.stdlib.BoundLogger, level: int) -> bool:
    """Tell whether a line of this level would be written, whoever has configured structlog, and however."""
    bound: Any = logger.bind()
    enabled = getattr(bound, "is_enabled_for", None) or getattr(bound, "isEnabledFor", None)
    return enabled is None or bool(enabled(level))


def configured_level() -> str | None:
    """Return the level given to `configure_logging`, None if it was not called: processes are set up alike."""
    root = logging.getLogger()
    if any(isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter) for handler in root.handlers):
        return logging.getLevelName(root.level)
    return None


def _formatter(*, terminal: bool) -> logging.Formatter:
    last: list[Processor]
    if terminal:
        last = [structlog.dev.ConsoleRenderer()]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
