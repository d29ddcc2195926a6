"""Waiting and finished tasks, for benchmarks and tests of claims on a queue of realistic size."""

import json
from uuid import UUID

from reference_manager.domain.commands import NO_TRACE, NewJob, NewStage, NewTasks
from reference_manager.domain.payloads import encode
from reference_manager.domain.states import Priority
from reference_manager.engine.dispatch.handover import Handover
from reference_manager.engine.dispatch.notifications import Notifications
from reference_manager.engine.records.jobs import Jobs
from reference_manager.engine.records.stages import Stages
from reference_manager.engine.records.tasks import Tasks
from reference_manager.store.pool import Database

CHUNK = 10_000
"""Maximum number of tasks per statement."""

PICTURE = {"source": "/pictures/0123456789.jpg", "target": "/thumbnails/0123456789.jpg", "size": 256}
"""Task data of typical size."""


def without_claims(database: Database) -> Handover:
    """Return what starts the transactions of changes in a process in which no claims wait."""
    return Handover(database, {}, Notifications())


async def add_backlog(database: Database, stage_type: str, count: int, priority: Priority = Priority.MEDIUM) -> UUID:
    """Create a job with one stage of `count` waiting tasks, and return the id of the stage."""
    handover = without_claims(database)
    job = json.loads((await Jobs(database, handover).create(NewJob("backlog", "{}", priority, "{}", NO_TRACE))).body)
    new = NewStage(stage_type, "{}", "{}", start_as_waiting=False, trace=NO_TRACE)
    stage_id = UUID(json.loads(await Stages(database, handover).add(UUID(job["id"]), new))["id"])
    for start in range(0, count, CHUNK):
        number = min(CHUNK, count - start)
        await Tasks(database, handover).add(stage_id, NewTasks(number, encode([PICTURE] * number), NO_TRACE))
    return stage_id


async def add_finished(database: Database, stage_id: UUID, count: int) -> None:
    """Add completed tasks to a stage, as if workers had already processed them."""
    async with database.connection() as connection:
        await connection.execute(
            """
            WITH finished AS (
                INSERT INTO tasks
                    (stage_id, status, outcome, max_attempts, start_time, end_time, data, user_metadata, traceparent)
                SELECT $1, 'COMPLETED', 'COMPLETED', 3, now(), now(), $3, '{}', $4 FROM generate_series(1, $2)
            )
            UPDATE stages SET completed = completed + $2 WHERE id = $1
            """,
            stage_id,
            count,
            json.dumps(PICTURE),
            NO_TRACE.traceparent,
        )
