"""The delays between retries."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobnik_sdk.http.retries import backoff, parse_retry_after


@given(st.integers(1, 5_000), st.integers(1, 100_000))
def test_backoff_doubles_up_to_its_maximum(initial_ms: int, maximum_ms: int) -> None:
    """The n-th delay is between 0 and min(maximum, initial x 2^n)."""
    delays = islice(backoff(timedelta(milliseconds=initial_ms), timedelta(milliseconds=maximum_ms)), 20)
    for n, delay in enumerate(delays):
        assert 0 <= delay <= min(maximum_ms, initial_ms * 2**n) / 1000 + 1e-9


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0), ("2", 2), ("600", 30), ("-1", 0), ("soon", 0), ("Wed, 21 Oct 2015 07:28:00 -0000", 0)],
)
def test_retry_after_in_seconds(header: str, seconds: int) -> None:
    """A number is a delay in seconds, at most 30; a header that cannot be parsed counts as 0."""
    assert parse_retry_after(header) == timedelta(seconds=seconds)


def test_retry_after_as_a_date() -> None:
    """A date is the time until then."""
    delay = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True))
    assert timedelta(seconds=18) < delay <= timedelta(seconds=20)
