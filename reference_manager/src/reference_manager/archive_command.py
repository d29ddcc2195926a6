"""The command ``jobnik-manager archive``: lists the files of an archive, and prints one of them."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

from reference_manager.archive.errors import ArchiveError
from reference_manager.archive.files import read_lines
from reference_manager.archive.stores import Archive, open_archive


def add_commands(parser: argparse.ArgumentParser, add_archive_flags: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the commands to their parser.

    Args:
        parser: The parser of ``archive``.
        add_archive_flags: Adds the flags that select the archive.
    """
    commands = parser.add_subparsers(required=True, dest="archive_command", metavar="list | read")
    listing = commands.add_parser("list", help="list the files", description="List the files of the archive.")
    about = "Print a file of the archive as JSON lines: a job with its stages, tasks, attempts and history each."
    reading = commands.add_parser("read", help="print a file", description=about)
    reading.add_argument("file", metavar="FILE", help="The name of the file, as listed.")
    for added in (listing, reading):
        add_archive_flags(added)


def run(flags: Mapping[str, Any], archive_url: str) -> None:
    """Run the command on an archive, and write to the standard output.

    Args:
        flags: The flags of the command.
        archive_url: The URL of the archive.

    Raises:
        ArchiveError: The archive or the file cannot be read.
    """
    archive = open_archive(archive_url)
    asyncio.run(_list(archive) if flags["archive_command"] == "list" else _read(archive, flags["file"]))


async def _list(archive: Archive) -> None:
    async for name in archive.names():
        sys.stdout.write(f"{name}\n")


async def _read(archive: Archive, name: str) -> None:
    if ".." in name.split("/") or name.startswith("/"):
        raise ArchiveError(f"{name}: not a name of a file in the archive")
    async for text in read_lines(archive, name):
        sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
