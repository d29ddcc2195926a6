"""Processes of other programs, as Linux shows them, and code that keeps them busy."""

import asyncio
import ctypes
from collections.abc import Sequence
from pathlib import Path


def descendants(pid: int) -> Sequence[int]:
    """Return the process ids of all descendants of a process."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # the process has just ended
            continue
    found, last = list[int](), [pid]
    while last:
        last = [child for child, parent in parents.items() if parent in last]
        found += last
    return found


def command_line(pid: int) -> str:
    """Return the program and the arguments of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def wait_until_gone(pids: Sequence[int]) -> None:
    """Wait until none of these processes runs; zombies count as ended."""
    async with asyncio.timeout(15):
        while any(is_running(pid) for pid in pids):  # noqa: ASYNC110 no event tells that other programs' processes end
            await asyncio.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def hold_the_gil(seconds: float) -> None:
    """Run C code that never lets other threads of this process run Python."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
