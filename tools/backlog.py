"""Tasks that wait, for benchmarks and tests that look at what surrounds a claim."""

import json
from uuid import UUID

from reference_manager.domain.requests import NO_TRACE, NewJob, NewStage, NewTask
from reference_manager.domain.states import Priority
from reference_manager.engine.jobs import Jobs
from reference_manager.engine.stages import Stages
from reference_manager.engine.tasks import Tasks
from reference_manager.engine.wakeups import Wakeups
from reference_manager.store.database import Database

CHUNK = 10_000
"""The most tasks in one statement."""

PICTURE = {"source": "/pictures/0123456789.jpg", "target": "/thumbnails/0123456789.jpg", "size": 256}
"""Task data of the usual size."""


async def add_backlog(database: Database, stage_type: str, count: int, priority: Priority = Priority.MEDIUM) -> UUID:
    """Add a job with one stage of this many waiting tasks; the stage's id."""
    wakeups = Wakeups()
    job = json.loads(await Jobs(database, wakeups).create(NewJob("backlog", {}, priority, {}, NO_TRACE)))
    new = NewStage(stage_type, {}, {}, start_as_waiting=False, trace=NO_TRACE)
    stage_id = UUID(json.loads(await Stages(database, wakeups).add(UUID(job["id"]), new))["id"])
    for start in range(0, count, CHUNK):
        await Tasks(database, wakeups).add(stage_id, [NewTask(PICTURE, {}, 3, NO_TRACE)] * min(CHUNK, count - start))
    return stage_id
