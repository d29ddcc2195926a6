"""Routes of tasks."""

from functools import partial
from typing import Annotated, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from reference_manager.api.common.access import PRODUCE_OR_WORK, READ, WORK
from reference_manager.api.common.disconnects import Client, client_of
from reference_manager.api.common.errors import (
    IDEMPOTENCY_KEY_REUSED,
    ILLEGAL_TASK_STATUS_TRANSITION,
    NO_WAITING_TASK,
    STAGE_IN_FINITE_STATE,
    STAGE_NOT_FOUND,
    TASK_NOT_FOUND,
    TASK_STATUS_UPDATE_FAILED,
    WITH_A_BODY,
)
from reference_manager.api.common.fields import (
    MAX_VALUES,
    SEPARATED,
    Id,
    MetadataFilters,
    Moment,
    Payload,
    StageTypeName,
    metadata_filter,
)
from reference_manager.api.common.headers import (
    CREATION,
    idempotency_key,
    is_keyed,
    prefer_parameter,
    prefers_minimal,
    request_trace,
)
from reference_manager.api.common.pagination import NumberedPageQuery, numbered_response, openapi_list_responses
from reference_manager.api.common.responses import (
    TASK_MODIFIED,
    code_response,
    json_response,
    minimal_response,
    openapi_responses,
    preferred_response,
)
from reference_manager.api.common.strict import StrictRoute, converted, converted_metadata
from reference_manager.api.tasks.requests import TaskBody, TaskStatusBody, new_tasks
from reference_manager.api.tasks.responses import Task, TaskPage, TasksCreated
from reference_manager.domain.commands import NewTasks, TaskFilter
from reference_manager.domain.states import TaskStatus
from reference_manager.engine.queues import TaskQueue, claimed_task, reported_task
from reference_manager.engine.records.tasks import Tasks

Statuses: TypeAlias = Annotated[
    Annotated[list[TaskStatus], Field(max_length=MAX_VALUES), SEPARATED] | None,
    Query(description="One or more statuses, separated by commas."),
]


def tasks_router(tasks: Tasks, queue: TaskQueue) -> APIRouter:
    """Build the routes of tasks."""
    router = APIRouter(prefix="/v1", tags=["tasks"], route_class=StrictRoute)

    @router.get("/stages/{stageId}/tasks", responses=openapi_list_responses(Task, STAGE_NOT_FOUND, numbered=TaskPage))
    @READ
    async def list_tasks_of_stage(stageId: Id, page: NumberedPageQuery) -> Response:
        """List the tasks of a stage, oldest first."""
        return await numbered_response(page, await tasks.list_of_stage(stageId))

    @router.post(
        "/stages/{stageId}/tasks",
        status_code=201,
        responses=openapi_responses(
            {201: preferred_response(list[Task] | TasksCreated)},
            STAGE_NOT_FOUND,
            STAGE_IN_FINITE_STATE,
            IDEMPOTENCY_KEY_REUSED,
            *WITH_A_BODY,
        ),
        openapi_extra={"parameters": [*CREATION["parameters"], prefer_parameter("only the number of created tasks")]},
    )
    @PRODUCE_OR_WORK
    async def add_tasks(stageId: Id, body: list[TaskBody], request: Request) -> Response:
        """Add tasks to a stage: all of them or none."""
        new = converted(request, new_tasks, body, request_trace(request), keyed=is_keyed(request))
        return await add_tasks_response(tasks, stageId, new, idempotency_key(request), minimal=prefers_minimal(request))

    @router.patch("/stages/{stageType}/tasks/dequeue", responses=openapi_responses({200: Task}, NO_WAITING_TASK))
    @WORK
    async def dequeue_task(stageType: StageTypeName, request: Request) -> Response:
        """Claim the next task of a stage type: from the most urgent job, oldest first."""
        return await dequeue_response(queue, stageType, client_of(request.scope))

    @router.get("/tasks", responses=openapi_list_responses(Task, numbered=TaskPage))
    @READ
    async def list_tasks(  # noqa: PLR0913, PLR0917 - the filters are the protocol's
        page: NumberedPageQuery,
        stage_id: Id | None = None,
        stage_type: StageTypeName | None = None,
        status: Statuses = None,
        metadata: MetadataFilters = None,
        from_date: Moment | None = None,
        end_date: Moment | None = None,
    ) -> Response:
        """List the matching tasks, oldest first. The dates refer to the creation and are inclusive."""
        wanted = TaskFilter(stage_id, stage_type, status, metadata_filter(metadata), from_date, end_date)
        return await numbered_response(page, tasks.list(wanted))

    @router.get("/tasks/{taskId}", responses=openapi_responses({200: Task}, TASK_NOT_FOUND))
    @READ
    async def get_task(taskId: Id) -> Response:
        """Read a task."""
        return json_response(await tasks.get(taskId))

    @router.patch(
        "/tasks/{taskId}/user-metadata", responses=openapi_responses({200: TASK_MODIFIED}, TASK_NOT_FOUND, *WITH_A_BODY)
    )
    @PRODUCE_OR_WORK
    async def set_task_metadata(taskId: Id, body: Payload, request: Request) -> Response:
        """Replace the user metadata of a task."""
        await tasks.set_metadata(taskId, converted_metadata(request, body))
        return code_response(TASK_MODIFIED)

    @router.put(
        "/tasks/{taskId}/status",
        responses=openapi_responses(
            {200: Task}, TASK_NOT_FOUND, ILLEGAL_TASK_STATUS_TRANSITION, TASK_STATUS_UPDATE_FAILED, *WITH_A_BODY
        ),
    )
    @WORK
    async def set_task_status(taskId: Id, body: TaskStatusBody) -> Response:
        """Report a claimed task as COMPLETED or FAILED. A failed task becomes RETRIED while it has attempts left."""
        return await report_response(queue, taskId, body)

    return router


async def add_tasks_response(
    tasks: Tasks, stage_id: UUID, new: NewTasks, key: str | None, *, minimal: bool
) -> Response:
    """Add tasks to a stage."""
    if not minimal:
        return json_response(await tasks.add(stage_id, new, key), 201)
    return minimal_response(f'{{"created":{await tasks.add_minimal(stage_id, new, key)}}}', 201)


async def dequeue_response(queue: TaskQueue, stage_type: str, client: Client) -> Response:
    """Claim a task for a client without leases, while it is connected."""
    claimed = await client.wait_for(queue.claim(stage_type), partial(queue.release, stage_type, None))
    return json_response(claimed_task(claimed or ()))


async def report_response(queue: TaskQueue, task_id: UUID, body: TaskStatusBody) -> Response:
    """Report a task of a client without leases, even if it disconnects meanwhile."""
    outcome = TaskStatus(body.status)
    return json_response(reported_task(await queue.settle_without_lease(task_id, outcome), outcome))
