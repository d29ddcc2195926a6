"""The command line of `python -m jobnik_devtools.dev`, which `make dev` runs in the folder of the project."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from jobnik_sdk.errors import ConfigurationError

from jobnik_devtools.dev.config import MAX_PORT, DevConfig
from jobnik_devtools.dev.programs import terminate_with_parent
from jobnik_devtools.dev.screen import Screen
from jobnik_devtools.dev.session import Session

_DESCRIPTION = """\
Run a manager, the worker and a first job (seed.py) in the current folder. The worker restarts when a file below src/ or
.env changes, and the first job when seed.py changes. Ctrl-C stops everything."""


def main() -> int:
    """Run the programs until Ctrl-C, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobnik_devtools.dev", description=_DESCRIPTION)
    parser.add_argument("package", metavar="PACKAGE", help="the package of the worker, such as thumbnail_worker")
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        help="the port of the manager (default: 8080); the next port serves the worker's probes and metrics",
    )
    arguments = parser.parse_args()
    if not 0 < arguments.port <= MAX_PORT:
        parser.error(f"--port must be 1 to {MAX_PORT}")
    # uv runs between make and this process. If uv is killed, this process must end too.
    terminate_with_parent(signal.SIGTERM, os.getppid())
    screen = Screen(sys.stdout)
    config = DevConfig(Path.cwd().resolve(), arguments.package, arguments.port)
    try:
        return asyncio.run(Session(config, screen).run())
    except ConfigurationError as error:
        screen.error(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
