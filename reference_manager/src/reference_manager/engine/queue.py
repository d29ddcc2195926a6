"""The two hot operations, claim and settle, each in lanes."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

from reference_manager.domain.machine import Driver, IllegalTransitionError
from reference_manager.domain.machines import TASK
from reference_manager.domain.states import TaskStatus
from reference_manager.engine.errors import NotFoundError, OvertakenError
from reference_manager.engine.lane import Lane
from reference_manager.store.database import Database, sql

BATCH = 200
"""The most tasks in one statement: larger ones gain little and keep the job's lock for longer."""


class _Report(NamedTuple):
    task_id: UUID
    outcome: TaskStatus


class TaskQueue:
    """Hands out tasks and takes their outcomes: one lane for the claims of each stage type, one for all outcomes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims: dict[str, Lane[None, str]] = {}
        # A report counts even if its sender has gone away meanwhile.
        self._settlements: Lane[_Report, str] = Lane(self._settle_batch, BATCH, droppable=False)

    def claim(self, stage_type: str) -> asyncio.Future[str]:
        """Claim the next task of a stage type; the task as JSON, to come.

        Raises:
            NotFoundError: None waits.
        """
        lane = self._claims.get(stage_type)
        if lane is None:
            # Clients choose the names of stage types: a lane stays only while somebody is in it.
            lane = self._claims[stage_type] = Lane(
                partial(self._claim_batch, stage_type), BATCH, on_idle=partial(self._claims.pop, stage_type)
            )
        return lane.submit(None)

    def settle(self, task_id: UUID, outcome: TaskStatus) -> asyncio.Future[str]:
        """Report a claimed task COMPLETED or FAILED; the task as JSON, to come.

        Raises:
            NotFoundError: There is no such task.
            IllegalTransitionError: It is not IN_PROGRESS.
            OvertakenError: It was, but somebody else settled it at the same moment.
        """
        return self._settlements.submit(_Report(task_id, outcome))

    async def _claim_batch(self, stage_type: str, callers: Sequence[None]) -> Sequence[str | Exception]:
        bodies: list[str | Exception] = []
        async with self._database.connection() as connection:
            while len(bodies) < len(callers):
                rows = await connection.fetch(sql.task_claim.sql, stage_type, len(callers) - len(bodies))
                if not rows:
                    break
                bodies += [body for (body,) in rows if body is not None]
        none_left = NotFoundError("task", "No task of this type is waiting")
        return bodies + [none_left] * (len(callers) - len(bodies))

    async def _settle_batch(self, reports: Sequence[_Report]) -> Sequence[str | Exception]:
        ids = [report.task_id for report in reports]
        outcomes = [report.outcome for report in reports]
        async with self._database.connection() as connection:
            rows = await connection.fetch(sql.task_settle.sql, ids, outcomes)
        return [
            body if body is not None else _refusal(source, report.outcome)
            for report, (source, body) in zip(reports, rows, strict=True)
        ]


def _refusal(source: str | None, outcome: TaskStatus) -> Exception:
    """Why a report was not taken, by the status that the task had."""
    if source is None:
        return NotFoundError("task")
    try:
        TASK.move(TaskStatus(source), outcome, Driver.CLIENT)
    except IllegalTransitionError as error:
        return error
    return OvertakenError()
