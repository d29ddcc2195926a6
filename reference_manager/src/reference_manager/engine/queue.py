"""The two hot operations, claim and settle, each in lanes."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple
from uuid import UUID

from reference_manager.domain.machine import Driver
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


class _Verdict(NamedTuple):
    source: TaskStatus | None
    body: str | None


class TaskQueue:
    """Hands out tasks and takes their outcomes: one lane for the claims of each stage type, one for all outcomes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._claims: dict[str, Lane[None, str | None]] = {}
        self._settlements: Lane[_Report, _Verdict] = Lane(self._settle_batch, BATCH)

    async def claim(self, stage_type: str) -> str:
        """Claim the next task of a stage type; the task as JSON.

        Raises:
            NotFoundError: None waits.
        """
        lane = self._claims.get(stage_type)
        if lane is None:
            lane = self._claims[stage_type] = Lane(partial(self._claim_batch, stage_type), BATCH)
        try:
            body = await lane.submit(None)
        finally:
            # Clients choose the names of stage types: a lane stays only while somebody is in it.
            if lane.idle:
                self._claims.pop(stage_type, None)
        if body is None:
            raise NotFoundError("task", "No task of this type is waiting")
        return body

    async def settle(self, task_id: UUID, outcome: TaskStatus) -> str:
        """Report a claimed task COMPLETED or FAILED; the task as JSON.

        Raises:
            NotFoundError: There is no such task.
            IllegalTransitionError: It is not IN_PROGRESS.
            OvertakenError: It was, but somebody else settled it at the same moment.
        """
        verdict = await self._settlements.submit(_Report(task_id, outcome))
        if verdict.body is not None:
            return verdict.body
        if verdict.source is None:
            raise NotFoundError("task")
        TASK.move(verdict.source, outcome, Driver.CLIENT)
        raise OvertakenError

    async def _claim_batch(self, stage_type: str, callers: Sequence[None]) -> Sequence[str | None]:
        bodies: list[str | None] = []
        async with self._database.connection() as connection:
            while len(bodies) < len(callers):
                rows = await connection.fetch(sql.task_claim.sql, stage_type, len(callers) - len(bodies))
                if not rows:
                    break
                bodies += [body for (body,) in rows if body is not None]
        return bodies + [None] * (len(callers) - len(bodies))

    async def _settle_batch(self, reports: Sequence[_Report]) -> Sequence[_Verdict]:
        ids = [report.task_id for report in reports]
        outcomes = [report.outcome for report in reports]
        async with self._database.connection() as connection:
            rows = await connection.fetch(sql.task_settle.sql, ids, outcomes)
        return [_Verdict(TaskStatus(source) if source else None, body) for source, body in rows]
