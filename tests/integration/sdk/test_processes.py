"""Functions in processes of their own."""

import asyncio
import os
import signal
from contextlib import suppress

import pytest
from jobnik_sdk.processes import ProcessDiedError, Processes


async def test_death_of_an_idle_process_fails_nothing() -> None:
    """A process that was killed while it had nothing to do is replaced; in the middle of a call it is an error."""
    processes = Processes()
    try:
        first = await processes.call(os.getpid)
        assert await processes.call(os.getpid) == first
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(_wait_until_collected, first)
        assert await processes.call(os.getpid) != first
        with pytest.raises(ProcessDiedError):
            await processes.call(os._exit, 7)
        assert await processes.call(abs, -1) == 1
    finally:
        await processes.close()


def _wait_until_collected(pid: int) -> None:
    """Wait until the pool has noticed: it collects the exit code last."""
    with suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)
