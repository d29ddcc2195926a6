"""The trace that the current work belongs to, as a W3C `traceparent`: jobs, stages, tasks and requests carry it on."""

import re
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

NO_TRACE: Final = f"00-{'0' * 32}-{'0' * 16}-00"
"""What a manager answers for an entity without a trace."""

_FORMAT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
_current: ContextVar[str | None] = ContextVar("jobnik_traceparent", default=None)


def current() -> str | None:
    """Return the traceparent that holds here, None outside of any trace."""
    return _current.get()


def enter(traceparent: str) -> None:
    """Make `traceparent` hold in the rest of the current context (an asyncio task has one of its own)."""
    _current.set(traceparent)


@contextmanager
def using(traceparent: str) -> Generator[None]:
    """Make `traceparent` hold within a `with` block: what is created there belongs to that trace."""
    token = _current.set(traceparent)
    try:
        yield
    finally:
        _current.reset(token)


def is_valid(traceparent: str) -> bool:
    """Tell whether this is a version 00 traceparent that names a trace: all zeros name none."""
    return _FORMAT.fullmatch(traceparent) is not None


def generate() -> str:
    """Return the traceparent of a new, sampled trace."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def child_of(traceparent: str) -> str:
    """Return a traceparent in the same trace with a span id of its own; a new trace where this one names none."""
    match = _FORMAT.fullmatch(traceparent)
    if match is None:
        return generate()
    trace_id, flags = match.groups()
    return f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"
