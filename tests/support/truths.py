"""What is always true of a manager's tables; the queries are in ``truths.sql``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiosql
import asyncpg

truths: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).with_suffix(".sql"), "asyncpg"
)
ALWAYS = (
    "false_summaries",
    "unfinished_stages",
    "forgotten_stages",
    "false_queues",
    "attempts_recorded_twice",
    "false_attempts",
    "false_totals",
)
"""Each counts what must not be; all hold at any moment."""


async def falsehoods(connection: "asyncpg.Connection[asyncpg.Record]") -> Sequence[str]:
    """What the tables say that cannot be true, one phrase each, such as "2 false summaries"."""
    counts = [(await getattr(truths, name)(connection), name) for name in ALWAYS]
    return [f"{count} {name.replace('_', ' ')}" for count, name in counts if count]
