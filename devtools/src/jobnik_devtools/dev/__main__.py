"""`python -m jobnik_devtools.dev PACKAGE`, in the folder of the project."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from jobnik_sdk.errors import ConfigurationError

from jobnik_devtools.dev.places import HIGHEST_PORT, Places
from jobnik_devtools.dev.programs import end_with_parent
from jobnik_devtools.dev.screen import Screen
from jobnik_devtools.dev.session import Session


def main() -> int:
    """Run manager, worker and seed until Ctrl-C, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jobnik_devtools.dev", description="Run a worker while it is written."
    )
    parser.add_argument("package", help="the worker's package; python -m PACKAGE starts it")
    parser.add_argument("--port", type=int, default=8080, help="the manager's; the worker's probes take the next one")
    given = parser.parse_args()
    if not 0 < given.port <= HIGHEST_PORT:
        parser.error(f"--port is 1 to {HIGHEST_PORT}")
    # Between make and this process is uv, which may be killed.
    end_with_parent(signal.SIGTERM, os.getppid())
    screen = Screen(sys.stdout)
    try:
        return asyncio.run(Session(Places(Path.cwd().resolve(), given.package, given.port), screen).run())
    except ConfigurationError as error:
        screen.trouble(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
