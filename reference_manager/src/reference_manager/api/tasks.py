"""/v1/tasks."""

from uuid import UUID

from fastapi import APIRouter, Response

from reference_manager.api.answers import TASK_MODIFIED, documented, done, found
from reference_manager.api.bodies import Metadata, Moment, StageTypeName, TaskStatusBody
from reference_manager.api.entities import Done, Task
from reference_manager.api.strict import StrictRoute
from reference_manager.domain.requests import TaskFilter
from reference_manager.domain.states import TaskStatus
from reference_manager.engine.queue import TaskQueue
from reference_manager.engine.tasks import Tasks


def tasks_router(tasks: Tasks, queue: TaskQueue) -> APIRouter:
    """The routes of tasks."""
    router = APIRouter(prefix="/v1/tasks", tags=["tasks"], route_class=StrictRoute)

    @router.get("", responses=documented({200: list[Task]}))
    async def list_tasks(
        stage_id: UUID | None = None,
        stage_type: StageTypeName | None = None,
        status: TaskStatus | None = None,
        from_date: Moment | None = None,
        end_date: Moment | None = None,
    ) -> Response:
        """List the tasks that match, oldest first; the dates are about their creation and inclusive."""
        return found(await tasks.list(TaskFilter(stage_id, stage_type, status, from_date, end_date)))

    @router.get("/{taskId}", responses=documented({200: Task}, 404))
    async def get_task(taskId: UUID) -> Response:  # noqa: N803 - the protocol's name
        """Read a task."""
        return found(await tasks.get(taskId))

    @router.patch("/{taskId}/user-metadata", responses=documented({200: Done}, 404, 413, 415))
    async def set_task_metadata(taskId: UUID, body: Metadata) -> Response:  # noqa: N803 - the protocol's name
        """Replace the user's metadata of a task."""
        await tasks.set_metadata(taskId, body)
        return done(TASK_MODIFIED)

    @router.put("/{taskId}/status", responses=documented({200: Task}, 404, 409, 413, 415))
    async def set_task_status(taskId: UUID, body: TaskStatusBody) -> Response:  # noqa: N803 - the protocol's name
        """Report a claimed task COMPLETED or FAILED. A failed one is RETRIED while it has attempts left."""
        return found(await queue.settle(taskId, TaskStatus(body.status)))

    return router
