"""How long a connection waits for its client: for the head of a request, for its body, and to accept a response."""

import math
from datetime import timedelta

MIN_RATE = 16 * 1024
"""Bytes a second that a client must send on average, after the first timeout. A body of 1 MiB may take 64 s longer."""


class RequestDeadline:
    """The time by which a client must have sent the next part of its request.

    The head of a request must be complete one timeout after the connection was opened or its first byte arrived. The
    body must make progress within one timeout, and arrive at the minimum rate. While the manager itself does not read,
    there is no deadline. All times are those of the event loop.

    Args:
        timeout: The longest time without progress.
        now: When the connection was opened.
    """

    def __init__(self, timeout: timedelta, now: float) -> None:
        self._timeout = timeout.total_seconds()
        self._due = now + self._timeout
        self._slowest = math.inf
        """When the body must have arrived at the minimum rate."""
        self._paused = False

    def begin_head(self, now: float) -> None:
        """Start to wait for a head, unless the wait has begun."""
        if self._due == math.inf:
            self._due = now + self._timeout

    def begin_body(self, now: float) -> None:
        """Start to wait for a body."""
        self._due = self._slowest = now + self._timeout

    def receive_body(self, size: int, now: float) -> None:
        """Extend the deadline, because a part of the body has arrived."""
        self._slowest += size / MIN_RATE
        self._due = min(now + self._timeout, self._slowest)

    def complete(self) -> None:
        """End the wait: the request has arrived."""
        self._due = math.inf

    def pause(self) -> None:
        """Stop the clock, because the manager stops reading."""
        self._paused = True

    def resume(self, now: float) -> None:
        """Start the clock again."""
        self._paused = False
        if self._due != math.inf:
            self._due = now + self._timeout
            self._slowest = max(self._slowest, self._due)

    def is_over(self, now: float) -> bool:
        """Return whether the client took too long."""
        return not self._paused and now > self._due


class ResponseDeadline:
    """The time for which a client has not accepted any byte of a response that waits for it.

    Args:
        now: When the connection was opened.
    """

    def __init__(self, now: float) -> None:
        self._accepted = 0
        self._progress = now

    def stalled(self, written: int, unsent: int, now: float) -> float:
        """Return for how many seconds no byte was accepted; 0 if nothing waits.

        Args:
            written: The bytes that were written to the connection since it was opened.
            unsent: How many of these the client has not accepted yet.
            now: The current time.
        """
        accepted = written - unsent
        if unsent == 0 or accepted != self._accepted:
            self._accepted = accepted
            self._progress = now
        return now - self._progress
