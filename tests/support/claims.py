"""Claims that run directly on the database."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from reference_manager.engine.dispatch.claims import BYTE_BUDGET
from reference_manager.store.pool import Record, sql


class ClaimedTask(NamedTuple):
    """A claimed task and the id of its lease."""

    task: UUID
    lease: int


def claim_statement(
    stage_type: str, limit: int, worker: str | None = None, length: timedelta = timedelta(minutes=1)
) -> tuple[Any, ...]:
    """Return the statement and arguments of a claim; without a worker, the tasks get no leases."""
    return sql.task_claim.sql, stage_type, limit, [1], [worker], [length], [False], BYTE_BUDGET


def claimed_tasks(rows: Sequence[Record]) -> Sequence[ClaimedTask]:
    """Return the tasks in the rows of a claim, in queue order."""
    return [
        ClaimedTask(*pair)
        for row in rows
        if row["more"] is None
        for pair in zip(row["tasks"], row["leases"], strict=True)
    ]
