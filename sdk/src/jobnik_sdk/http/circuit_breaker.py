"""A circuit breaker: after repeated failures it stops calls for a while, then allows one trial call."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Final

from jobnik_sdk.model.arguments import check_duration, check_integer, check_number
from jobnik_sdk.model.exceptions import ConfigurationError

MIN_CALLS: Final = 10
"""The default minimum number of calls before a breaker can open."""
_HOUR: Final = timedelta(hours=1)
MAX_EARLIER_SUCCESSES: Final = 1_000
"""How many successes before the first failure count, so that 1,000 failures in a row open even a fast worker's
breaker."""


class BreakerState(IntEnum):
    """Which calls a circuit breaker allows: all, one at a time, or none. The values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, kw_only=True)
class BreakerPolicy:
    """When a circuit breaker opens, and for how long. The defaults are those of the protocol.

    >>> Handler(pages, fetch, concurrency=20, circuit_breaker=BreakerPolicy(failure_rate=0.9))

    The breaker opens when at least `failure_rate` of the calls within the last `window` failed, if there were at least
    `min_calls` calls. After `pause` it allows one call at a time, and closes when one succeeds.

    Args:
        failure_rate: More than 0, and at most 1. Default: 0.5.
        min_calls: 1 or more. None: 10, or twice the concurrency of the handler if that is more.
        window: A whole number of seconds, from 1 s to 1 hour. Default: 60 s.
        pause: More than 0, and at most 1 hour. Default: 30 s.

    Raises:
        ConfigurationError: an argument is out of range.
    """

    failure_rate: float = 0.5
    min_calls: int | None = None
    window: timedelta = timedelta(seconds=60)
    pause: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        check_duration("The window of a circuit breaker", self.window)
        check_duration("The pause of a circuit breaker", self.pause)
        check_number("The failure_rate of a circuit breaker", self.failure_rate, 0, 1)
        if self.min_calls is not None:
            check_integer("The min_calls of a circuit breaker", self.min_calls)
        if not self.failure_rate:
            reason = "failure_rate must be more than 0"
        elif not timedelta(seconds=1) <= self.window <= _HOUR or self.window % timedelta(seconds=1):
            reason = f"window must be a whole number of seconds from 1 s to 1 hour, not {self.window}"
        elif not timedelta() < self.pause <= _HOUR:
            reason = f"pause must be more than 0 and at most 1 hour, not {self.pause}"
        else:
            return
        raise ConfigurationError(f"A circuit breaker's {reason}.")


class CircuitBreaker:
    """Counts calls and failures in a sliding window. One thread calls `record`; any thread may read `state`.

    Args:
        on_change: Called with CLOSED or OPEN after the breaker has closed or opened.
        policy: When it opens.
        concurrency: How many calls run at the same time; it affects the default of `policy.min_calls`.
        clock: Returns seconds and never goes back.
    """

    __slots__ = (
        *("_calls", "_clock", "_failure_rate", "_failures", "_min_calls", "_on_change"),
        *("_opened_at", "_pause", "_seconds", "_window"),
    )

    def __init__(
        self,
        on_change: Callable[[BreakerState], None],
        policy: BreakerPolicy,
        *,
        concurrency: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_change = on_change
        self._failure_rate = policy.failure_rate
        self._min_calls = policy.min_calls or max(MIN_CALLS, 2 * concurrency)
        self._window = policy.window // timedelta(seconds=1)
        self._pause = policy.pause.total_seconds()
        self._clock = clock
        self._opened_at: float | None = None
        self._restart_window(int(clock()))

    @property
    def state(self) -> BreakerState:
        """The current state; OPEN becomes HALF_OPEN when its time is over, without a call."""
        opened_at = self._opened_at  # another thread may reset it
        if opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() - opened_at < self._pause else BreakerState.HALF_OPEN

    def record(self, *, success: bool) -> None:
        """Record the result of a call; ignored while the breaker is open, since such a call started before."""
        now = self._clock()
        if self._opened_at is not None:
            if now - self._opened_at >= self._pause:
                self._record_trial(now, success=success)
            return
        if self._seconds[-1][0] != int(now):
            self._advance_window(int(now))
        if not success:
            if not self._failures and self._calls > MAX_EARLIER_SUCCESSES:
                self._restart_window(int(now), MAX_EARLIER_SUCCESSES)
            self._seconds[-1][2] += 1
            self._failures += 1
        self._seconds[-1][1] += 1
        self._calls += 1
        if self._failures >= self._failure_rate * self._calls and self._calls >= self._min_calls:
            self._opened_at = now
            self._on_change(BreakerState.OPEN)

    def _record_trial(self, now: float, *, success: bool) -> None:
        if not success:
            self._opened_at = now
            return
        self._opened_at = None
        self._restart_window(int(now))
        self._on_change(BreakerState.CLOSED)

    def _restart_window(self, second: int, successes: int = 0) -> None:
        self._seconds = deque([[second, successes, 0]])  # each a second, its calls, and how many of them failed
        self._calls = successes
        self._failures = 0

    def _advance_window(self, second: int) -> None:
        self._seconds.append([second, 0, 0])
        while self._seconds[0][0] <= second - self._window:
            _, calls, failures = self._seconds.popleft()
            self._calls -= calls
            self._failures -= failures
