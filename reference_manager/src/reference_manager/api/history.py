"""What operators ask of the past: attempts, and every change of status."""

from uuid import UUID

from fastapi import APIRouter, Response

from reference_manager.api.answers import documented, found
from reference_manager.api.strict import StrictRoute
from reference_manager.api.work_entities import Attempt, Change
from reference_manager.engine.history import History


def history_router(history: History) -> APIRouter:
    """The routes of the past."""
    router = APIRouter(prefix="/v1", tags=["history"], route_class=StrictRoute)

    @router.get("/tasks/{taskId}/attempts", responses=documented({200: list[Attempt]}, 404))
    async def list_attempts(taskId: UUID) -> Response:
        """List the attempts at a task, oldest first: whose, when, how they ended and why."""
        return found(await history.attempts(taskId))

    @router.get("/jobs/{jobId}/history", responses=documented({200: list[Change]}, 404))
    async def get_job_history(jobId: UUID) -> Response:
        """List every change of a job's status, oldest first."""
        return found(await history.of_job(jobId))

    @router.get("/stages/{stageId}/history", responses=documented({200: list[Change]}, 404))
    async def get_stage_history(stageId: UUID) -> Response:
        """List every change of a stage's status, oldest first."""
        return found(await history.of_stage(stageId))

    @router.get("/tasks/{taskId}/history", responses=documented({200: list[Change]}, 404))
    async def get_task_history(taskId: UUID) -> Response:
        """List every change of a task's status, oldest first."""
        return found(await history.of_task(taskId))

    return router
