"""Circuit breakers: what fails too often is left alone for a while, then tried once.

Over the last 60 s, and from 10 calls on: where half of them or more failed, it opens. After 30 s one call is let
through, whose success closes it again. The figures are the protocol's.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from math import inf
from typing import Final, Protocol

from interlock import CircuitBreaker, CircuitOpenError, Config, State, WindowType
from typing_extensions import override

WINDOW_SECONDS: Final = 60
ERROR_RATE: Final = 0.5
FEWEST_CALLS: Final = 10
OPEN_SECONDS: Final = 30.0
MOST_SUCCESSES: Final = 1_000
"""Taken into account with a first failure: it takes as many failures within a minute to open, whatever came before."""


class BreakerState(IntEnum):
    """Whether calls are let through, as the metrics count it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker(Protocol):
    """What a worker needs of a circuit breaker."""

    @property
    def state(self) -> BreakerState:
        """CLOSED lets through all calls, HALF_OPEN one at a time, OPEN none."""
        ...

    def record(self, *, success: bool) -> None:
        """Note how a call ended."""
        ...


class InterlockBreaker(Breaker):
    """A breaker by interlock; `on_change` is called with each new state, CLOSED or OPEN, after it holds.

    A call is judged when it has ended, so interlock sees all of it at once. While nothing fails there is nothing to
    judge: then successes are only counted, which costs a task next to nothing, and the first failure brings those of
    the last minute along, a thousand at the most.
    """

    def __init__(self, name: str, on_change: Callable[[BreakerState], None], clock: "Clock | None" = None) -> None:
        self._clock = clock or _SystemClock()
        self._on_change = on_change
        self._open = False
        self._opened_at = 0.0
        self._failed_at = -inf
        self._successes: deque[list[int]] = deque(maxlen=WINDOW_SECONDS)  # pairs: a second, and how many in it
        self._circuit = CircuitBreaker(
            name=name,
            config=Config(
                failure_rate_threshold=ERROR_RATE,
                minimum_number_of_calls=FEWEST_CALLS,
                permitted_calls_in_half_open=1,
                wait_duration_in_open=OPEN_SECONDS,
                window_type=WindowType.TIME_BASED,
                window_size=WINDOW_SECONDS,
            ),
            clock=self._clock,
            classifier=_ByResult(),
        )

    @property
    @override
    def state(self) -> BreakerState:
        if not self._open:
            return BreakerState.CLOSED
        # interlock itself only knows when the next call comes.
        waited = self._clock.monotonic() - self._opened_at
        return BreakerState.HALF_OPEN if waited >= OPEN_SECONDS else BreakerState.OPEN

    @override
    def record(self, *, success: bool) -> None:
        now = self._clock.monotonic()
        if success and now - self._failed_at > WINDOW_SECONDS and not self._open:
            self._count(int(now))
            return
        if self.state is BreakerState.OPEN:
            return  # it began before that
        if not success:
            self._failed_at = now
            for _ in range(min(self._counted(int(now)), MOST_SUCCESSES)):
                self._circuit.call_sync(_same, True)  # noqa: FBT003 as it ended
        with suppress(CircuitOpenError):
            self._circuit.call_sync(_same, success)
        self._follow()

    def _count(self, second: int) -> None:
        if self._successes and self._successes[-1][0] == second:
            self._successes[-1][1] += 1
        else:
            self._successes.append([second, 1])

    def _counted(self, now: int) -> int:
        """How many successes of the last minute interlock has not seen; from now on it has."""
        counted = sum(number for second, number in self._successes if second > now - WINDOW_SECONDS)
        self._successes.clear()
        return counted

    def _follow(self) -> None:
        now_open = self._circuit.state is State.OPEN
        if now_open:
            self._opened_at = self._clock.monotonic()
        if now_open != self._open:
            self._open = now_open
            self._on_change(BreakerState.OPEN if now_open else BreakerState.CLOSED)


class Clock(Protocol):
    """A clock that never goes back."""

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        ...


class _SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()


class _ByResult:
    """Takes a call that returns False for a failed one."""

    def is_failure(self, *, result: object, exception: Exception | None) -> bool:
        return exception is not None or result is False


def _same(success: bool) -> bool:  # noqa: FBT001 what interlock calls
    return success
