"""Render, install and start the worker, as a new user would."""

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager

from tools.demo.folders import Folders
from tools.demo.processes import Background, background, run_tool
from tools.demo.programs import beside_python
from tools.external import uv
from tools.snapshot import take_snapshot

SERVICE_NAME = "thumbnail-worker"
STAGE_TYPE = "thumbnails"


async def render(folders: Folders) -> None:
    """Render the worker from this repository's template, including uncommitted changes."""
    await asyncio.to_thread(take_snapshot, folders.source)
    answers = ["--data", f"service_name={SERVICE_NAME}", "--data", f"stage_type={STAGE_TYPE}"]
    command = [beside_python("copier"), "copy", "--defaults", *answers, str(folders.source), str(folders.worker)]
    await run_tool(command, folders.log("setup"))


async def install(folders: Folders) -> None:
    """Install the worker in its own environment, with the SDK from this repository."""
    command = [uv(), "sync", "--no-dev", "--project", str(folders.worker), "--python", sys.executable]
    await run_tool(command, folders.log("setup"))


def start(folders: Folders, manager_url: str) -> AbstractAsyncContextManager[Background]:
    """Run the worker as a process, configured by environment variables as in a deployment."""
    return background(
        "rendered worker",
        [str(folders.worker / ".venv" / "bin" / SERVICE_NAME)],
        folders.log("worker"),
        JOBNIK_BASE_URL=manager_url,
        WORKER_CONCURRENCY=str(os.cpu_count() or 1),
        WORKER_RETRY_INITIAL_DELAY_MS="50",
        WORKER_RETRY_MAX_DELAY_MS="400",
        PROBE_PORT="0",
    )
