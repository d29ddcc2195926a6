"""/v1/stages."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from reference_manager.api.answers import STAGE_MODIFIED, documented, done, found, trace_of
from reference_manager.api.bodies import Metadata, StageStatusBody, StageTypeName, TaskBody
from reference_manager.api.entities import Done, Stage, Summary, Task
from reference_manager.api.strict import StrictRoute
from reference_manager.domain.requests import StageFilter
from reference_manager.domain.states import StageStatus
from reference_manager.engine.queue import TaskQueue
from reference_manager.engine.stages import Stages
from reference_manager.engine.tasks import Tasks


def stages_router(stages: Stages, tasks: Tasks, queue: TaskQueue) -> APIRouter:
    """The routes of stages and of the tasks inside them."""
    router = APIRouter(prefix="/v1/stages", tags=["stages"], route_class=StrictRoute)

    @router.get("", responses=documented({200: list[Stage]}))
    async def list_stages(
        job_id: UUID | None = None,
        stage_type: StageTypeName | None = None,
        stage_operation_status: StageStatus | None = None,
        *,
        should_return_tasks: bool = False,
    ) -> Response:
        """List the stages that match, by job and order."""
        wanted = StageFilter(job_id, stage_type, stage_operation_status)
        return found(await stages.list(wanted, with_tasks=should_return_tasks))

    @router.get("/{stageId}", responses=documented({200: Stage}, 404))
    async def get_stage(stageId: UUID, *, should_return_tasks: bool = False) -> Response:  # noqa: N803 - the protocol's name
        """Read a stage."""
        return found(await stages.get(stageId, with_tasks=should_return_tasks))

    @router.get("/{stageId}/summary", responses=documented({200: Summary}, 404))
    async def get_stage_summary(stageId: UUID) -> Response:  # noqa: N803 - the protocol's name
        """Count the tasks of a stage by status."""
        return found(await stages.summary(stageId))

    @router.patch("/{stageId}/user-metadata", responses=documented({200: Done}, 404, 413, 415))
    async def set_stage_metadata(stageId: UUID, body: Metadata) -> Response:  # noqa: N803 - the protocol's name
        """Replace the user's metadata of a stage."""
        await stages.set_metadata(stageId, body)
        return done(STAGE_MODIFIED)

    @router.put("/{stageId}/status", responses=documented({200: Done}, 404, 413, 415))
    async def set_stage_status(stageId: UUID, body: StageStatusBody) -> Response:  # noqa: N803, ARG001 - PENDING is all there is
        """Release a stage that was created with startAsWaiting, once the stage before it is COMPLETED."""
        await stages.release(stageId)
        return done(STAGE_MODIFIED)

    @router.get("/{stageId}/tasks", tags=["tasks"], responses=documented({200: list[Task]}, 404))
    async def list_tasks_of_stage(stageId: UUID) -> Response:  # noqa: N803 - the protocol's name
        """List the tasks of a stage, oldest first."""
        return found(await tasks.list_of_stage(stageId))

    @router.post(
        "/{stageId}/tasks", status_code=201, tags=["tasks"], responses=documented({201: list[Task]}, 404, 413, 415)
    )
    async def add_tasks(stageId: UUID, body: list[TaskBody], request: Request) -> Response:  # noqa: N803 - the protocol's name
        """Add tasks to a stage, all or none."""
        trace = trace_of(request)
        return found(await tasks.add(stageId, [task.request(trace) for task in body]), 201)

    @router.patch("/{stageType}/tasks/dequeue", tags=["tasks"], responses=documented({200: Task}, 404))
    async def dequeue_task(stageType: StageTypeName) -> Response:  # noqa: N803 - the protocol's name
        """Claim the next task of a stage type: of the most urgent job, oldest first."""
        return found(await queue.claim(stageType))

    return router
