"""A circuit breaker: after repeated failures it stops calls for a while, then allows one trial call.

It opens when at least half of the calls of the last 60 s failed, counted from 10 calls on. After 30 s it allows one
call, and closes if that call succeeds. The protocol defines these figures.
"""

import time
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final

WINDOW_SECONDS: Final = 60
FAILURE_RATE: Final = 0.5
MIN_CALLS: Final = 10
OPEN_SECONDS: Final = 30.0
MAX_EARLIER_SUCCESSES: Final = 1_000
"""How many successes before the first failure count, so that 1,000 failures in a row open even a fast worker's
breaker."""


class BreakerState(IntEnum):
    """Which calls a circuit breaker allows: all, one at a time, or none. The values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class CircuitBreaker:
    """Counts calls and failures in a sliding window. One thread calls `record`; any thread may read `state`.

    Args:
        on_change: Called with CLOSED or OPEN after the breaker has closed or opened.
        clock: Returns seconds and never goes back.
    """

    __slots__ = ("_calls", "_clock", "_failures", "_on_change", "_opened_at", "_seconds")

    def __init__(self, on_change: Callable[[BreakerState], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_change = on_change
        self._clock = clock
        self._opened_at: float | None = None
        self._restart_window(int(clock()))

    @property
    def state(self) -> BreakerState:
        """The current state; OPEN becomes HALF_OPEN when its time is over, without a call."""
        opened_at = self._opened_at  # another thread may reset it
        if opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() - opened_at < OPEN_SECONDS else BreakerState.HALF_OPEN

    def record(self, *, success: bool) -> None:
        """Record the result of a call; ignored while the breaker is open, since such a call started before."""
        now = self._clock()
        if self._opened_at is not None:
            if now - self._opened_at >= OPEN_SECONDS:
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
        if self._failures >= FAILURE_RATE * self._calls and self._calls >= MIN_CALLS:
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
        while self._seconds[0][0] <= second - WINDOW_SECONDS:
            _, calls, failures = self._seconds.popleft()
            self._calls -= calls
            self._failures -= failures
