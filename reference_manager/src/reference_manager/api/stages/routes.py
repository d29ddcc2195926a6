"""What clients ask of stages."""

from fastapi import APIRouter, Request, Response

from reference_manager.api.common.fields import Id, Metadata, StageTypeName
from reference_manager.api.common.pagination import PartOfList, answer_entity, answer_list, listed
from reference_manager.api.common.refusals import (
    ILLEGAL_STAGE_STATUS_TRANSITION,
    JOB_IN_FINITE_STATE,
    JOB_NOT_FOUND,
    OF_BODIES,
    STAGE_NOT_FOUND,
)
from reference_manager.api.common.responses import (
    STAGE_MODIFIED,
    TRACED,
    AskedForProgress,
    documented,
    done,
    found,
    trace_of,
)
from reference_manager.api.common.strict import StrictRoute
from reference_manager.api.stages.requests import StageBody, StageStatusBody
from reference_manager.api.stages.responses import Stage, Summary
from reference_manager.domain.requests import StageFilter
from reference_manager.domain.states import StageStatus
from reference_manager.engine.records.stages import Stages


def stages_router(stages: Stages) -> APIRouter:
    """The routes of stages."""
    router = APIRouter(prefix="/v1", tags=["stages"], route_class=StrictRoute)

    @router.get("/jobs/{jobId}/stages", responses=listed(Stage, JOB_NOT_FOUND))
    async def list_stages_of_job(jobId: Id, part: PartOfList, *, should_return_tasks: bool = False) -> Response:
        """List the stages of a job by their order."""
        return await answer_list(part, await stages.list_of_job(jobId, with_tasks=should_return_tasks))

    @router.post(
        "/jobs/{jobId}/stage",
        status_code=201,
        responses=documented({201: Stage}, JOB_NOT_FOUND, JOB_IN_FINITE_STATE, *OF_BODIES),
        openapi_extra=TRACED,
    )
    async def add_stage(jobId: Id, body: StageBody, request: Request) -> Response:
        """Add a stage behind the last one of a job."""
        return found(await stages.add(jobId, body.request(trace_of(request))), 201)

    @router.get("/stages", responses=listed(Stage))
    async def list_stages(
        part: PartOfList,
        job_id: Id | None = None,
        stage_type: StageTypeName | None = None,
        stage_operation_status: StageStatus | None = None,
        *,
        should_return_tasks: bool = False,
    ) -> Response:
        """List the stages that match, by job and order."""
        wanted = StageFilter(job_id, stage_type, stage_operation_status)
        return await answer_list(part, stages.list(wanted, with_tasks=should_return_tasks))

    @router.get("/stages/{stageId}", responses=documented({200: Stage}, STAGE_NOT_FOUND))
    async def get_stage(
        stageId: Id, *, should_return_tasks: bool = False, should_return_progress: AskedForProgress = False
    ) -> Response:
        """Read a stage."""
        stage = await stages.get(stageId, with_tasks=should_return_tasks, with_progress=should_return_progress)
        return await answer_entity(stage)

    @router.get("/stages/{stageId}/summary", responses=documented({200: Summary}, STAGE_NOT_FOUND))
    async def get_stage_summary(stageId: Id) -> Response:
        """Count the tasks of a stage by status."""
        return found(await stages.summary(stageId))

    @router.patch(
        "/stages/{stageId}/user-metadata",
        responses=documented({200: STAGE_MODIFIED}, STAGE_NOT_FOUND, *OF_BODIES),
    )
    async def set_stage_metadata(stageId: Id, body: Metadata) -> Response:
        """Replace the user's metadata of a stage."""
        await stages.set_metadata(stageId, body)
        return done(STAGE_MODIFIED)

    @router.put(
        "/stages/{stageId}/status",
        responses=documented({200: STAGE_MODIFIED}, STAGE_NOT_FOUND, ILLEGAL_STAGE_STATUS_TRANSITION, *OF_BODIES),
    )
    async def set_stage_status(stageId: Id, body: StageStatusBody) -> Response:  # noqa: ARG001 - PENDING is all there is
        """Release a stage that was created with startAsWaiting, once the stage before it is COMPLETED."""
        await stages.release(stageId)
        return done(STAGE_MODIFIED)

    return router
