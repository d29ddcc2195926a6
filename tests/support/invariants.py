"""Invariants of a manager's tables; their queries are in ``invariants.sql``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiosql
import asyncpg

queries: Any = aiosql.from_path(  # pyright: ignore[reportUnknownMemberType] - aiosql types its own parameters loosely
    Path(__file__).with_suffix(".sql"), "asyncpg"
)
INVARIANTS = (
    "wrong_summaries",
    "unfinished_stages",
    "unqueued_stages",
    "wrong_queue_entries",
    "attempts_recorded_twice",
    "wrong_attempt_counts",
    "wrong_totals",
    "wrong_ended_jobs",
    "lost_tasks",
)
"""The queries whose invariants hold at any moment. Each counts the violations."""


async def violations(connection: "asyncpg.Connection[asyncpg.Record]") -> Sequence[str]:
    """Return the violated invariants, one phrase each, such as "2 wrong summaries"."""
    counts = [(await getattr(queries, name)(connection), name) for name in INVARIANTS]
    return [f"{count} {name.replace('_', ' ')}" for count, name in counts if count]
