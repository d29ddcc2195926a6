"""Outputs that accept nothing, for the logs of worker processes."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from enum import StrEnum


class Output(StrEnum):
    """Why an output accepts nothing."""

    FULL_DISK = "full disk"
    CLOSED_PIPE = "closed pipe"
    UNREAD_PIPE = "unread pipe"


@contextmanager
def broken_output(output: Output) -> Generator[int]:
    """Open an output that accepts nothing, as a file descriptor."""
    if output is Output.FULL_DISK:
        files = [os.open("/dev/full", os.O_WRONLY)]
    else:
        reader, writer = os.pipe()
        files = [writer, reader]
        if output is Output.CLOSED_PIPE:
            os.close(files.pop())
        else:
            _fill(writer)
    yield files[0]
    for file in files:
        os.close(file)


def _fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, bytes(4096))
    os.set_blocking(pipe, True)
