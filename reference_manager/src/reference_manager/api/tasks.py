"""What clients and workers ask of tasks."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from reference_manager.api.answers import TASK_MODIFIED, documented, done, found, trace_of
from reference_manager.api.bodies import Metadata, Moment, StageTypeName, TaskBody, TaskStatusBody
from reference_manager.api.entities import Done, Task
from reference_manager.api.lists import PartOfList, answer_list, listed
from reference_manager.api.strict import StrictRoute
from reference_manager.domain.requests import TaskFilter
from reference_manager.domain.states import TaskStatus
from reference_manager.engine.queue import TaskQueue, only_task
from reference_manager.engine.tasks import Tasks


def tasks_router(tasks: Tasks, queue: TaskQueue) -> APIRouter:
    """The routes of tasks."""
    router = APIRouter(prefix="/v1", tags=["tasks"], route_class=StrictRoute)

    @router.get("/stages/{stageId}/tasks", responses=listed(Task, 404))
    async def list_tasks_of_stage(stageId: UUID, part: PartOfList) -> Response:
        """List the tasks of a stage, oldest first."""
        return await answer_list(part, await tasks.list_of_stage(stageId))

    @router.post("/stages/{stageId}/tasks", status_code=201, responses=documented({201: list[Task]}, 404, 413, 415))
    async def add_tasks(stageId: UUID, body: list[TaskBody], request: Request) -> Response:
        """Add tasks to a stage, all or none."""
        trace = trace_of(request)
        return found(await tasks.add(stageId, [task.request(trace) for task in body]), 201)

    @router.patch("/stages/{stageType}/tasks/dequeue", responses=documented({200: Task}, 404))
    async def dequeue_task(stageType: StageTypeName) -> Response:
        """Claim the next task of a stage type: of the most urgent job, oldest first."""
        return found(only_task(await queue.claim(stageType)))

    @router.get("/tasks", responses=listed(Task))
    async def list_tasks(  # noqa: PLR0913, PLR0917 - the filters are the protocol's
        part: PartOfList,
        stage_id: UUID | None = None,
        stage_type: StageTypeName | None = None,
        status: TaskStatus | None = None,
        from_date: Moment | None = None,
        end_date: Moment | None = None,
    ) -> Response:
        """List the tasks that match, oldest first; the dates are about their creation and inclusive."""
        wanted = TaskFilter(stage_id, stage_type, status, from_date, end_date)
        return await answer_list(part, tasks.list(wanted))

    @router.get("/tasks/{taskId}", responses=documented({200: Task}, 404))
    async def get_task(taskId: UUID) -> Response:
        """Read a task."""
        return found(await tasks.get(taskId))

    @router.patch("/tasks/{taskId}/user-metadata", responses=documented({200: Done}, 404, 413, 415))
    async def set_task_metadata(taskId: UUID, body: Metadata) -> Response:
        """Replace the user's metadata of a task."""
        await tasks.set_metadata(taskId, body)
        return done(TASK_MODIFIED)

    @router.put("/tasks/{taskId}/status", responses=documented({200: Task}, 404, 409, 413, 415))
    async def set_task_status(taskId: UUID, body: TaskStatusBody) -> Response:
        """Report a claimed task COMPLETED or FAILED. A failed one is RETRIED while it has attempts left."""
        outcome = TaskStatus(body.status)
        return found((await queue.settle_without_lease(taskId, outcome)).entity(outcome))

    return router
