"""Structured logs: coloured text on a terminal, otherwise one JSON object per line.

The standard library's `logging` writes to the same output, in the same format.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, Protocol, TextIO

import structlog
from opentelemetry.trace import get_current_span
from structlog.typing import EventDict, Processor, WrappedLogger
from typing_extensions import override

from jobnik_sdk.observability.log_writer import writer_of
from jobnik_sdk.observability.secrets import mask_secrets

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


def _mask_line(_logger: WrappedLogger, _method: str, line: Any) -> str:  # noqa: ANN401 a rendered line
    return mask_secrets(line)


_WARNING_INTERVAL_SECONDS: Final = 1.0
_LOST_ADVICE: Final = "check the disk of the logs, and the reader of the worker's output"

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


class _Output(logging.StreamHandler[TextIO]):
    """Standard output, to which lines of other processes can be written as well.

    Nothing waits for it, except in a fork of this process, which does not have the thread that writes.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._process = os.getpid()
        self._writer = writer_of(self.stream, self._process)

    def write_line(self, text: str) -> None:
        """Write a formatted line."""
        self.handle(logging.makeLogRecord({"msg": text, "formatted": True}))

    @override
    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg) if hasattr(record, "formatted") else super().format(record)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if self._writer is None or os.getpid() != self._process:
            super().emit(record)
            return
        try:
            self._writer.write(self.format(record) + self.terminator)
            if lost := self._writer.take_lost():
                _log.warning("log lines lost", lines=lost, reason=self._writer.reason, advice=_LOST_ADVICE)
        except Exception:  # noqa: BLE001 as in the base class
            self.handleError(record)

    @override
    def flush(self) -> None:
        self.is_flushed()

    def is_flushed(self) -> bool:
        """Wait a moment until all lines are written or lost; return whether they are."""
        if self._writer is None or os.getpid() != self._process:
            super().flush()
            return True
        return self._writer.flush()


class _ForwardingOutput(logging.StreamHandler[TextIO]):
    """Passes formatted lines on, except in a fork of this process, which writes them to standard output itself."""

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__(sys.stdout)
        self._send = send
        self._process = os.getpid()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if os.getpid() != self._process:
            super().emit(record)
            return
        try:
            self._send(self.format(record))
        except Exception:  # noqa: BLE001 as in the base class
            self.handleError(record)


def configure_logging(level: str = "INFO") -> None:
    """Write logs to standard output. Call it once, when the program starts; `run` does so for a worker.

    On a terminal a line is coloured text, otherwise a JSON object. structlog, the standard library's `logging` and
    Python warnings all write to the same output.

    Args:
        level: The lowest level that is written: DEBUG, INFO, WARNING, ERROR or CRITICAL.

    Raises:
        ValueError: the level is unknown.
    """
    _configure(level, _Output(sys.stdout))


def forward_logs(level: str, send: Callable[[str], None]) -> None:
    """Do the same as `configure_logging`, but call `send` with each line, without its line end, instead of writing it.

    Handler processes use it: a long line takes several writes to a pipe, and those of several processes would mix.
    """
    _configure(level, _ForwardingOutput(send))


def write_line(text: str) -> None:
    """Write a line of a handler process to the output of this process."""
    for output in _outputs() or [_Output(sys.stdout)]:  # the application may have installed a handler of its own
        with suppress(BaseException):  # as in `RuntimeLogger`: logging reports errors to a stream that may be closed
            output.write_line(text)


def flush_logs() -> bool:
    """Wait a moment until all lines are written or lost; return False if standard output accepts no text."""
    return all(output.is_flushed() for output in _outputs())


def _outputs() -> list[_Output]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _Output)]


def _configure(level: str, output: logging.Handler) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    # Standard output is None if it was closed when Python started.
    output.setFormatter(_formatter(terminal=bool(sys.stdout and sys.stdout.isatty())))
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    # httpx2 logs every request at INFO, which the SDK's own log lines and metrics already cover.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


class RuntimeLogger:
    """The logger of a module whose work must continue when a log line cannot be written.

    The output may be closed or full, or a processor of the application may raise any exception, even SystemExit. The
    line is then lost.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger: structlog.stdlib.BoundLogger = structlog.get_logger(name)

    def info(self, event: str, **fields: object) -> None:
        """Log an event that is part of normal operation."""
        with suppress(BaseException):
            self._logger.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log an event that an operator may have to act on."""
        with suppress(BaseException):
            self._logger.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Log an event that an operator has to act on."""
        with suppress(BaseException):
            self._logger.error(event, **fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log an unexpected error, with the traceback of the exception that is being handled."""
        with suppress(BaseException):
            self._logger.exception(event, **fields)  # noqa: LOG004 called in an exception handler

    def is_enabled(self, level: int) -> bool:
        """Return whether a line of this level would be written, however the application has configured structlog."""
        bound: Any = self._logger.bind()
        enabled = getattr(bound, "is_enabled_for", None) or getattr(bound, "isEnabledFor", None)
        return enabled is None or bool(enabled(level))


class LimitedWarning:
    """A warning that is logged at most once in an interval, however many tasks it concerns.

    Args:
        logger: The logger.
        event: The event of the log line.
        interval_seconds: The shortest time between two lines.
    """

    def __init__(self, logger: RuntimeLogger, event: str, interval_seconds: float = _WARNING_INTERVAL_SECONDS) -> None:
        self._logger = logger
        self._event = event
        self._interval_seconds = interval_seconds
        self._logged_at = float("-inf")

    def log(self, **fields: object) -> None:
        """Log the event, unless that has been done within the interval."""
        now = time.monotonic()
        if now - self._logged_at >= self._interval_seconds:
            self._logged_at = now
            self._logger.warning(self._event, **fields)


_log: Final = RuntimeLogger(__name__)


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
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers, _mask_line],
    )
