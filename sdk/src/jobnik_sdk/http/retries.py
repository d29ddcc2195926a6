"""Retries of HTTP requests: which failures are worth a retry, and how long to wait before it."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import islice
from typing import Final

from jobnik_sdk.errors import (
    AnswerError,
    LostAnswerError,
    ManagerFailureError,
    UnexpectedAnswerError,
    UnreachableError,
)
from jobnik_sdk.observability import metrics

RETRIES: Final = 3
INITIAL_DELAY: Final = timedelta(milliseconds=100)
MAX_DELAY: Final = timedelta(seconds=30)

# An unexpected response usually comes from a failing proxy, not from the manager.
TRANSIENT_ERRORS: Final = (UnreachableError, ManagerFailureError, UnexpectedAnswerError)
"""Errors that a later try may not have, for callers that retry until the manager has accepted or refused."""

_RETRIED_STATUSES: Final = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


def backoff(initial: timedelta, maximum: timedelta) -> Iterator[float]:
    """Yield delays in seconds without end: exponential with factor 2 and full jitter.

    The n-th delay (from 0) is uniformly distributed between 0 and min(maximum, initial x 2^n). With 1 s and 60 s, the
    fourth is between 0 and 8 s. Full jitter keeps many waiting clients from returning at the same moment.
    """
    maximum_seconds = maximum.total_seconds()
    ceiling = min(initial.total_seconds(), maximum_seconds)
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311 jitter is no secret
        ceiling = min(ceiling * 2, maximum_seconds)


def delays() -> Iterator[float]:
    """Yield the delays in seconds before the three retries of a request; the first is at most 100 ms."""
    return islice(backoff(INITIAL_DELAY, MAX_DELAY), RETRIES)


def is_retryable(failure: UnreachableError | AnswerError, *, creates: bool) -> bool:
    """Return whether sending the request again may help and is safe.

    `creates` is whether the request creates something each time that it arrives: if its response was lost, a second one
    might create it again.
    """
    if isinstance(failure, AnswerError):
        return failure.status in _RETRIED_STATUSES
    return not (creates and isinstance(failure, LostAnswerError))


def parse_retry_after(header: str) -> timedelta:
    """Return the delay that a `Retry-After` header asks for, in seconds or as a date.

    At most 30 s; 0 if the header is empty or cannot be parsed.
    """
    delay = timedelta()
    if header.isdecimal():
        delay = timedelta(seconds=min(int(header), MAX_DELAY.total_seconds()))
    else:
        with suppress(ValueError, TypeError):
            delay = parsedate_to_datetime(header) - datetime.now(UTC)
    return min(max(delay, timedelta()), MAX_DELAY)


async def wait_before_retry(failure: UnreachableError | AnswerError, method: str, delay: float) -> None:
    """Wait `delay` seconds, or longer if the manager asked for it, and count the retry that follows."""
    retry_after = failure.retry_after.total_seconds() if isinstance(failure, AnswerError) else 0.0
    await asyncio.sleep(max(delay, retry_after))
    metrics.HTTP_RETRIES.labels(method, _reason(failure)).inc()


def _reason(failure: UnreachableError | AnswerError) -> str:
    if isinstance(failure, AnswerError):
        return str(failure.status)
    return "lost_answer" if isinstance(failure, LostAnswerError) else "unreachable"
