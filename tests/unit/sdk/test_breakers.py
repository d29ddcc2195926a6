"""When a circuit breaker opens, and how it closes again, on a clock that a test moves."""

import pytest
from jobnik_sdk.http.circuit_breaker import BreakerState, InterlockBreaker

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


class ObservedWorker:
    """A breaker, the clock it goes by, and what it told."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.told: list[BreakerState] = []
        self.breaker = InterlockBreaker("test", self.told.append, self)

    def monotonic(self) -> float:
        """The clock's word."""
        return self.now

    def record(self, successes: int = 0, failures: int = 0) -> None:
        """Let calls end."""
        for _ in range(successes):
            self.breaker.record(success=True)
        for _ in range(failures):
            self.breaker.record(success=False)


@pytest.fixture
def watched() -> ObservedWorker:
    """A breaker without a past."""
    return ObservedWorker()


def test_it_opens_where_half_of_ten_calls_fail(watched: ObservedWorker) -> None:
    """Nine calls are too few to judge; the tenth is enough."""
    watched.record(successes=4, failures=5)
    assert watched.breaker.state is CLOSED
    watched.record(failures=1)
    assert watched.breaker.state is OPEN
    assert watched.told == [OPEN]


def test_successes_before_the_first_failure_count(watched: ObservedWorker) -> None:
    """A worker that was well a moment ago is not stopped by ten failures among many tasks."""
    watched.record(successes=100, failures=99)
    assert watched.breaker.state is CLOSED
    watched.record(failures=1)
    assert watched.breaker.state is OPEN


def test_successes_of_an_hour_ago_do_not_count(watched: ObservedWorker) -> None:
    """Only the last minute does."""
    watched.record(successes=100)
    watched.now += 3_600
    watched.record(failures=10)
    assert watched.breaker.state is OPEN


def test_failures_of_an_hour_ago_do_not_count(watched: ObservedWorker) -> None:
    """Only the last minute does."""
    watched.record(failures=9)
    watched.now += 61
    watched.record(failures=9)
    assert watched.breaker.state is CLOSED


def test_it_tries_again_after_half_a_minute(watched: ObservedWorker) -> None:
    """Then one success closes it, and calls from before it opened say nothing."""
    watched.record(failures=10)
    watched.record(successes=5)
    assert watched.breaker.state is OPEN
    watched.now += 30
    assert watched.breaker.state is HALF_OPEN
    watched.record(successes=1)
    assert watched.breaker.state is CLOSED
    assert watched.told == [OPEN, CLOSED]


def test_a_failed_trial_opens_it_for_as_long_again(watched: ObservedWorker) -> None:
    """The next trial comes after another half a minute."""
    watched.record(failures=10)
    watched.now += 30
    watched.record(failures=1)
    assert watched.breaker.state is OPEN
    watched.now += 29
    assert watched.breaker.state is OPEN
    watched.now += 1
    assert watched.breaker.state is HALF_OPEN
    assert watched.told == [OPEN]
