"""A worker process: ``python -m benchmarks.contenders NAME ADDRESS EVERY``.

It says when its first task and each EVERY-th began: ``handled NUMBER SECONDS``, by the clock that all processes share.
"""

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable

from benchmarks.contenders import ENTRIES

STDOUT = 1


def notes(every: int) -> Callable[[], None]:
    """Return the function that each task calls, from any thread."""
    numbers = itertools.count(1)

    def note() -> None:
        number = next(numbers)
        if number == 1 or number % every == 0:
            # Not print: some redirect sys.stdout into their logs.
            os.write(STDOUT, b"handled %d %.6f\n" % (number, time.monotonic()))

    return note


if __name__ == "__main__":
    _, name, address, every = sys.argv
    logging.basicConfig(level=logging.WARNING)
    ENTRIES[name].contender(address).work(notes(int(every)))
