"""`make docs`: write the references that are generated from code. With --check, list the outdated files instead."""

import argparse
import sys
from pathlib import Path

from tools.docs.pages import PAGES, outdated, write


def main() -> int:
    """Write or check the references, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description="Write the generated references.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a file is out of date")
    if not parser.parse_args().check:
        write()
        print(f"{len(PAGES)} generated references are up to date.")
        return 0
    differing = outdated()
    for file in differing:
        print(f"{file.relative_to(Path.cwd())} is out of date: run `make docs` and commit the result.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
