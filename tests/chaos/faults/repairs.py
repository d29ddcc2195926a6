"""Faults and their repairs."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeAlias

from tests.chaos.cluster import Cluster

Repair: TypeAlias = Callable[[], Awaitable[None]]
Fault: TypeAlias = Callable[[Cluster], Awaitable[Repair | None]]
"""Injects a fault. Returns a function that repairs it, or None if no repair is needed."""


def in_background(end: Coroutine[None, None, None]) -> Repair:
    """Let a fault end in the background while other faults start. The repair waits for its end."""
    running = asyncio.create_task(end)

    async def repair() -> None:
        await running

    return repair
