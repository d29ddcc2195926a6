"""A wall clock that jumps, for worker processes whose leases, waits and limits must not depend on it."""

import os
import time

DAY = 86_400.0
JUMP_INTERVAL = 0.3
"""Seconds between two jumps."""
VARIABLE = "CLOCK_JUMPS"


def jump_if_requested() -> None:
    """Make the clock jump between one day behind and one day ahead, if the environment variable is set."""
    if not os.environ.get(VARIABLE):
        return
    real_time = time.time

    def jumping_time() -> float:
        ahead = int(time.monotonic() / JUMP_INTERVAL) % 2 == 0
        return real_time() + (DAY if ahead else -DAY)

    time.time = jumping_time
    time.time_ns = lambda: int(jumping_time() * 1e9)
