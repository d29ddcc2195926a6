"""A worker process: ``python -m benchmarks.contenders NAME ADDRESS EVERY``.

It prints ``handled NUMBER SECONDS`` when its first task and every EVERY-th task start, with the time of the monotonic
clock, which all processes share.
"""

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable

from benchmarks.contenders import ENTRIES

STDOUT = 1


def task_counter(every: int) -> Callable[[], None]:
    """Return the function that handlers call; it is thread-safe."""
    numbers = itertools.count(1)

    def note() -> None:
        number = next(numbers)
        if number == 1 or number % every == 0:
            # Not print: some queues redirect sys.stdout to their logs.
            os.write(STDOUT, b"handled %d %.6f\n" % (number, time.monotonic()))

    return note


if __name__ == "__main__":
    _, name, address, every = sys.argv
    logging.basicConfig(level=logging.WARNING)
    ENTRIES[name].contender(address).work(task_counter(int(every)))
