"""Saboteurs in a worker process with the real manager: each affects only its own attempt.

The module `sabotage` does the same for minutes.
"""

import asyncio
import subprocess
from pathlib import Path
from typing import Final

import pytest
from jobnik_sdk import HandlerStyle, JobnikClient

from tests.integration.sdk.sabotage import SabotagedWorker
from tests.support.processes import wait_until_gone

_PID_1: Final = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.mark.timeout(120)  # a dozen processes of handlers die, and a new one takes its time on a busy machine
async def test_nothing_that_a_handler_does_hurts_its_neighbours(client: JobnikClient, tmp_path: Path) -> None:
    """Beside every kind of sabotage, 200 neighbours complete at their first attempt, and the worker stops cleanly."""
    async with SabotagedWorker(client, tmp_path / "errors") as worker:
        neighbours = await worker.start_neighbours(seconds=8)
        assert await worker.sabotage(*HandlerStyle) == []
        assert await worker.undisturbed(neighbours) == []
        processes = worker.processes()
        assert await worker.stop() == 0
    await wait_until_gone(processes)
    assert worker.torn == []
    assert worker.events["much"] == 2
    assert "worker crashed" not in worker.events


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, HandlerStyle.THREAD])
async def test_nothing_outlives_a_killed_worker(
    client: JobnikClient, tmp_path: Path, style: HandlerStyle, *, frozen: bool
) -> None:
    """When a worker is killed, its handlers' processes and their programs end, even while C code holds the GIL.

    C code holds the GIL in a process first, and then also in the worker itself, on the event loop or in a thread.
    """
    async with SabotagedWorker(client, tmp_path / "errors") as worker:
        await worker.start("start_a_program_and_hold_the_gil", HandlerStyle.PROCESS)
        await worker.wait_for_log("holding the gil")
        await worker.start("hold_the_gil", style)
        await worker.wait_for_log("holding the gil", 2)
        processes = worker.processes()
        assert len(processes) >= 3  # the process, its guard and its program
        if frozen:
            worker.freeze()
        await worker.kill()
        await wait_until_gone(processes)


@pytest.mark.skipif(subprocess.run([*_PID_1, "true"], check=False).returncode != 0, reason="needs user namespaces")  # noqa: S603 a constant
async def test_orphans_of_a_container_are_reaped(client: JobnikClient, tmp_path: Path) -> None:
    """As PID 1, a worker runs below an init that reaps the orphans of handlers, and passes SIGTERM on."""
    async with SabotagedWorker(client, tmp_path / "errors", prefix=_PID_1) as worker:
        assert await worker.sabotage(HandlerStyle.THREAD, HandlerStyle.PROCESS, kinds={"leave_orphans"}) == []
        async with asyncio.timeout(15):
            while "sleep" in (names := [name for name, _ in worker.states()]):  # noqa: ASYNC110 no event tells
                await asyncio.sleep(0.02)
        assert "sh" not in names
        assert "Z" not in [state for _, state in worker.states()]
        first, *_ = worker.processes()
        assert await worker.stop(first) == 0
