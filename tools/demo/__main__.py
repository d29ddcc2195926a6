"""`make demo`: render a worker from the template and let it turn pictures into thumbnails.

Everything is real: a manager with its PostgreSQL, a worker in its own environment and process, and a job with two
stages. The results are in ./demo.
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
from tools.demo.run import run_demo
from tools.demo.screen import Screen
from tools.external import MissingProgramError

_EXIT_FAILED = 1
# 128 plus the number of SIGINT, as shells report it.
_EXIT_STOPPED = 130


def main() -> int:
    """Run the demo, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        type=Path,
        default=OWN_PICTURES,
        help="folder of pictures to use instead of the demo's own",
    )
    images: Path = parser.parse_args().images
    screen = Screen()
    try:
        pictures = find_pictures(images)
        return asyncio.run(_run(pictures, Folders(Path.cwd() / "demo"), screen))
    except (DemoError, JobnikError, MissingProgramError) as error:
        screen.error(str(error))
        return _EXIT_FAILED


async def _run(pictures: Sequence[Path], folders: Folders, screen: Screen) -> int:
    running = asyncio.create_task(run_demo(pictures, folders, screen))
    _cancel_on_signal(running)
    try:
        return 0 if await running else _EXIT_FAILED
    except asyncio.CancelledError:
        screen.stopped()
        return _EXIT_STOPPED


def _cancel_on_signal(task: asyncio.Task[bool]) -> None:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def cancel_once() -> None:
        # A second Ctrl-C must not interrupt the shutdown.
        for number in signals:
            loop.add_signal_handler(number, lambda: None)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, cancel_once)


if __name__ == "__main__":
    sys.exit(main())
