"""A wall clock that jumps, for worker processes whose leases, waits and limits must not depend on it."""

import os
import struct
import time
from pathlib import Path

DAY = 86_400.0
JUMP_INTERVAL = 0.3
"""Seconds between two jumps."""
VARIABLE = "CLOCK_JUMPS"
OFFSET_VARIABLE = "CLOCK_OFFSET"
"""The path of a file that `set_offset` has written."""
_OFFSET = struct.Struct("d")


def set_offset(file: Path, seconds: float) -> None:
    """Set the clocks of all processes that use this file, from now on."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(descriptor, _OFFSET.pack(seconds), 0)  # one system call, so that nobody reads a part of it
    os.close(descriptor)


def jump_if_requested() -> None:
    """Make the clock jump if an environment variable is set.

    With `CLOCK_JUMPS`, it jumps between one day behind and one day ahead. With `CLOCK_OFFSET`, it follows a file.
    """
    jumps, file = os.environ.get(VARIABLE), os.environ.get(OFFSET_VARIABLE)
    if not jumps and not file:
        return
    real_time = time.time
    descriptor = os.open(file, os.O_RDONLY) if file else None

    def jumping_time() -> float:
        now = real_time()
        if jumps:
            now += DAY if int(time.monotonic() / JUMP_INTERVAL) % 2 == 0 else -DAY
        if descriptor is not None:
            now += _OFFSET.unpack(os.pread(descriptor, _OFFSET.size, 0))[0]
        return now

    time.time = jumping_time
    time.time_ns = lambda: int(jumping_time() * 1e9)
