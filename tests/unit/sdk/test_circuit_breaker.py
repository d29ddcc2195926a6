"""When the circuit breaker opens and closes, on a clock that the test moves."""

from datetime import timedelta
from typing import Any

import pytest
from jobnik_sdk import ConfigurationError
from jobnik_sdk.http.circuit_breaker import BreakerPolicy, BreakerState, CircuitBreaker

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


class BreakerOnTestClock:
    """A circuit breaker, its clock, and the changes that it reported."""

    def __init__(self, policy: BreakerPolicy | None = None, concurrency: int = 1) -> None:
        policy = policy or BreakerPolicy()
        self.now = 1_000.0
        self.changes: list[BreakerState] = []
        self.breaker = CircuitBreaker(self.changes.append, policy, concurrency=concurrency, clock=lambda: self.now)

    @property
    def state(self) -> BreakerState:
        """The state of the breaker."""
        return self.breaker.state

    def record(self, successes: int = 0, failures: int = 0) -> None:
        """Record the results of calls."""
        for _ in range(successes):
            self.breaker.record(success=True)
        for _ in range(failures):
            self.breaker.record(success=False)


@pytest.fixture
def subject() -> BreakerOnTestClock:
    """A circuit breaker that has seen no calls."""
    return BreakerOnTestClock()


def test_it_opens_when_half_of_ten_calls_failed(subject: BreakerOnTestClock) -> None:
    """Nine calls are too few; ten are enough."""
    subject.record(successes=4, failures=5)
    assert subject.state is CLOSED
    subject.record(failures=1)
    assert subject.state is OPEN
    assert subject.changes == [OPEN]


def test_a_success_that_completes_ten_calls_opens_it(subject: BreakerOnTestClock) -> None:
    """The failure rate is checked after every call, whatever its result."""
    subject.record(failures=5)
    subject.record(successes=4)
    assert subject.state is CLOSED
    subject.record(successes=1)
    assert subject.state is OPEN


def test_successes_before_the_first_failure_count(subject: BreakerOnTestClock) -> None:
    """A worker that was healthy a moment ago is not stopped by ten failures among many tasks."""
    subject.record(successes=100, failures=99)
    assert subject.state is CLOSED
    subject.record(failures=1)
    assert subject.state is OPEN


def test_at_most_a_thousand_successes_before_the_first_failure_count(subject: BreakerOnTestClock) -> None:
    """The breaker of a worker that completed 5,000 tasks in a minute opens after 1,000 failures in a row."""
    subject.record(successes=5_000, failures=999)
    assert subject.state is CLOSED
    subject.record(failures=1)
    assert subject.state is OPEN


def test_successes_after_the_first_failure_count_without_limit(subject: BreakerOnTestClock) -> None:
    """After the first failure, the window holds every call."""
    subject.record(failures=1)
    subject.record(successes=2_000, failures=1_998)
    assert subject.state is CLOSED
    subject.record(failures=1)
    assert subject.state is OPEN


def test_old_successes_do_not_count(subject: BreakerOnTestClock) -> None:
    """Only calls of the last minute count."""
    subject.record(successes=100)
    subject.now += 3_600
    subject.record(failures=10)
    assert subject.state is OPEN


def test_old_failures_do_not_count(subject: BreakerOnTestClock) -> None:
    """Only calls of the last minute count."""
    subject.record(failures=9)
    subject.now += 61
    subject.record(failures=9)
    assert subject.state is CLOSED


def test_calls_leave_the_window_one_second_at_a_time(subject: BreakerOnTestClock) -> None:
    """After a minute, the calls of the first second no longer count, but those of the next second still do."""
    subject.record(successes=20)
    subject.now += 1
    subject.record(failures=9)
    subject.now += 58
    subject.record(failures=1)
    assert subject.state is CLOSED  # 10 of 30
    subject.now += 1
    subject.record(successes=1)
    assert subject.state is OPEN  # 10 of 11


def test_it_allows_a_trial_after_30_seconds(subject: BreakerOnTestClock) -> None:
    """One success closes it. Calls that started before it opened do not count."""
    subject.record(failures=10)
    subject.record(successes=5)
    assert subject.state is OPEN
    subject.now += 30
    assert subject.state is HALF_OPEN
    subject.record(successes=1)
    assert subject.state is CLOSED
    assert subject.changes == [OPEN, CLOSED]


def test_a_failed_trial_opens_it_for_another_30_seconds(subject: BreakerOnTestClock) -> None:
    """A further failure does not report another change."""
    subject.record(failures=10)
    subject.now += 30
    subject.record(failures=1)
    assert subject.state is OPEN
    subject.now += 29
    assert subject.state is OPEN
    subject.now += 1
    assert subject.state is HALF_OPEN
    assert subject.changes == [OPEN]


def test_it_starts_over_after_it_has_closed(subject: BreakerOnTestClock) -> None:
    """Failures from before the trial do not count again."""
    subject.record(failures=10)
    subject.now += 30
    subject.record(successes=1, failures=9)
    assert subject.state is CLOSED
    subject.record(failures=1)
    assert subject.state is OPEN


def test_the_policy_sets_rate_minimum_window_and_pause() -> None:
    """Each of them replaces a default."""
    policy = BreakerPolicy(failure_rate=1, min_calls=2, window=timedelta(seconds=5), pause=timedelta(seconds=0.5))
    subject = BreakerOnTestClock(policy, concurrency=50)
    subject.record(successes=1)
    subject.now += 5
    subject.record(failures=1)
    assert subject.state is CLOSED
    subject.record(failures=1)
    assert subject.state is OPEN
    subject.now += 0.5
    assert subject.state is HALF_OPEN


@pytest.mark.parametrize(("concurrency", "minimum"), [(1, 10), (5, 10), (6, 12), (100, 200)])
def test_the_minimum_grows_with_concurrency(concurrency: int, minimum: int) -> None:
    """If all attempts that run at one moment fail, that is not enough to open the breaker."""
    subject = BreakerOnTestClock(concurrency=concurrency)
    subject.record(failures=minimum - 1)
    assert subject.state is CLOSED
    subject.record(failures=1)
    assert subject.state is OPEN


@pytest.mark.parametrize(
    "options",
    [
        {"failure_rate": 0},
        {"failure_rate": 1.01},
        {"failure_rate": float("nan")},
        {"min_calls": 0},
        {"window": timedelta(seconds=0.5)},
        {"window": timedelta(seconds=1.5)},
        {"window": timedelta(hours=2)},
        {"pause": timedelta()},
        {"pause": timedelta(hours=2)},
    ],
)
def test_invalid_policies_are_rejected(options: dict[str, Any]) -> None:
    """The error names the option."""
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))}( of a circuit breaker)? must be"):
        BreakerPolicy(**options)


@pytest.mark.parametrize("option", ["window", "pause"])
def test_durations_have_a_unit(option: str) -> None:
    """A number is rejected."""
    with pytest.raises(TypeError, match=f"The {option} of a circuit breaker must be a timedelta"):
        BreakerPolicy(**{option: 30})  # pyright: ignore[reportArgumentType] on purpose
