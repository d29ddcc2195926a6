"""Claims straight from the database."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from reference_manager.store.pool import Record, sql


class InHand(NamedTuple):
    """A claimed task."""

    task: UUID
    lease: int


def claim_of(
    stage_type: str, limit: int, worker: str | None = None, length: timedelta = timedelta(minutes=1)
) -> tuple[Any, ...]:
    """A claim, as statement and arguments; without a worker there are no leases."""
    return sql.task_claim.sql, stage_type, limit, [1], [worker], [length], False


def in_hand(rows: Sequence[Record]) -> Sequence[InHand]:
    """The tasks in the rows of a claim, in the order of the queue."""
    return [InHand(*pair) for row in rows for pair in zip(row["tasks"], row["leases"], strict=True)]
