"""When a request is sent again, and after how long."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import islice
from typing import Final

from jobnik_sdk.errors import AnswerError, LostAnswerError, UnreachableError
from jobnik_sdk.observability import metrics

RETRIES: Final = 3
INITIAL_DELAY: Final = timedelta(milliseconds=100)
MAX_DELAY: Final = timedelta(seconds=30)

_RETRIED_STATUSES: Final = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


def backoff(initial: timedelta, maximum: timedelta) -> Iterator[float]:
    """Yield waiting times in seconds for ever: exponential, factor 2, with full jitter.

    The n-th (from 0) is drawn evenly from 0 to min(maximum, initial x 2^n): with 1 s and 60 s, the fourth lies between
    0 and 8 s. Full jitter keeps many waiting clients from coming back at the same moment.
    """
    longest = maximum.total_seconds()
    ceiling = min(initial.total_seconds(), longest)
    while True:
        yield random.uniform(0, ceiling)  # noqa: S311 jitter is no secret
        ceiling = min(ceiling * 2, longest)


def delays() -> Iterator[float]:
    """Yield the seconds to wait before each of a request's three retries, 100 ms at most before the first."""
    return islice(backoff(INITIAL_DELAY, MAX_DELAY), RETRIES)


def may_repeat(failure: UnreachableError | AnswerError, method: str) -> bool:
    """Tell whether sending again can help, and can do no harm.

    A POST whose answer was lost may have created something, which a second one would create again.
    """
    if isinstance(failure, AnswerError):
        return failure.status in _RETRIED_STATUSES
    return method != "POST" or not isinstance(failure, LostAnswerError)


def asked_delay(retry_after: str) -> timedelta:
    """Return how long a `Retry-After` header, seconds or a date, asks to wait: 30 s at most, 0 if it is empty."""
    asked = timedelta()
    if retry_after.isdecimal():
        asked = timedelta(seconds=min(int(retry_after), MAX_DELAY.total_seconds()))
    else:
        with suppress(ValueError, TypeError):
            asked = parsedate_to_datetime(retry_after) - datetime.now(UTC)
    return min(max(asked, timedelta()), MAX_DELAY)


async def pause(failure: UnreachableError | AnswerError, method: str, delay: float) -> None:
    """Wait `delay` seconds, or longer where the manager asked for it, and count the repetition that follows."""
    asked = failure.retry_after.total_seconds() if isinstance(failure, AnswerError) else 0.0
    await asyncio.sleep(max(delay, asked))
    metrics.HTTP_RETRIES.labels(method, _reason(failure)).inc()


def _reason(failure: UnreachableError | AnswerError) -> str:
    if isinstance(failure, AnswerError):
        return str(failure.status)
    return "lost_answer" if isinstance(failure, LostAnswerError) else "unreachable"
