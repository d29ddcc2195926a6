"""`make demo`: a worker that Copier has just rendered turns pictures into thumbnails.

Everything is real: the manager with its PostgreSQL, the worker in an environment and a process of its own, a job of two
stages. What it makes lies in ./demo.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jobnik_sdk import JobnikError

from tools.demo.folders import OWN_PICTURES, Folders, find_pictures
from tools.demo.processes import DemoError
from tools.demo.screen import Screen
from tools.demo.story import tell
from tools.external import MissingProgramError

_EXIT_FAILED = 1
# 128 and the number of SIGINT, as shells say it.
_EXIT_STOPPED = 130


def main() -> int:
    """Run the demo, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", metavar="FOLDER", type=Path, default=OWN_PICTURES, help="take these pictures")
    images: Path = parser.parse_args().images
    screen = Screen()
    try:
        pictures = find_pictures(images)
        return asyncio.run(_run(pictures, Folders(Path.cwd() / "demo"), screen))
    except (DemoError, JobnikError, MissingProgramError) as error:
        screen.error(str(error))
        return _EXIT_FAILED


async def _run(pictures: Sequence[Path], folders: Folders, screen: Screen) -> int:
    telling = asyncio.create_task(tell(pictures, folders, screen))
    _cancel_when_told_to_stop(telling)
    try:
        return 0 if await telling else _EXIT_FAILED
    except asyncio.CancelledError:
        screen.stopped()
        return _EXIT_STOPPED


def _cancel_when_told_to_stop(task: asyncio.Task[bool]) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def cancel_once() -> None:
        # An impatient second Ctrl-C must not cut off the stopping of what runs.
        for number in signals:
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, cancel_once)


if __name__ == "__main__":
    sys.exit(main())
