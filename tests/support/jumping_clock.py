"""A wall clock that jumps, for worker processes: leases, waits and limits must not go by it."""

import os
import time

DAY = 86_400.0
STEADY = 0.3
"""Seconds between two jumps."""
VARIABLE = "CLOCK_JUMPS"


def jump_if_told() -> None:
    """From a day behind to a day ahead and back, again and again, if the environment says so."""
    if not os.environ.get(VARIABLE):
        return
    true = time.time

    def jumping() -> float:
        ahead = int(time.monotonic() / STEADY) % 2 == 0
        return true() + (DAY if ahead else -DAY)

    time.time = jumping
    time.time_ns = lambda: int(jumping() * 1e9)
