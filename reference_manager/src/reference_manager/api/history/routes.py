"""Routes of the history: attempts, and every change of status."""

from fastapi import APIRouter, Response

from reference_manager.api.common.access import READ
from reference_manager.api.common.errors import JOB_NOT_FOUND, STAGE_NOT_FOUND, TASK_NOT_FOUND
from reference_manager.api.common.fields import Id
from reference_manager.api.common.pagination import HistoryPageQuery, list_response, openapi_list_responses
from reference_manager.api.common.strict import StrictRoute
from reference_manager.api.history.responses import Attempt, Change
from reference_manager.engine.records.history import History


def history_router(history: History) -> APIRouter:
    """Build the routes of the history."""
    router = APIRouter(prefix="/v1", tags=["history"], route_class=StrictRoute)

    @router.get("/tasks/{taskId}/attempts", responses=openapi_list_responses(Attempt, TASK_NOT_FOUND))
    @READ
    async def list_attempts(taskId: Id, page: HistoryPageQuery) -> Response:
        """List the attempts of a task, oldest first, each with its worker, times, outcome and error."""
        return await list_response(page, await history.attempts(taskId))

    @router.get("/jobs/{jobId}/history", responses=openapi_list_responses(Change, JOB_NOT_FOUND))
    @READ
    async def get_job_history(jobId: Id, page: HistoryPageQuery) -> Response:
        """List the status changes of a job, oldest first."""
        return await list_response(page, await history.of_job(jobId))

    @router.get("/stages/{stageId}/history", responses=openapi_list_responses(Change, STAGE_NOT_FOUND))
    @READ
    async def get_stage_history(stageId: Id, page: HistoryPageQuery) -> Response:
        """List the status changes of a stage, oldest first."""
        return await list_response(page, await history.of_stage(stageId))

    @router.get("/tasks/{taskId}/history", responses=openapi_list_responses(Change, TASK_NOT_FOUND))
    @READ
    async def get_task_history(taskId: Id, page: HistoryPageQuery) -> Response:
        """List the status changes of a task, oldest first."""
        return await list_response(page, await history.of_task(taskId))

    return router
