"""What workers ask of a queue: many tasks at once, under leases."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from reference_manager.api.common.errors import (
    LEASE_LOST,
    TASK_NOT_FOUND,
    WITH_A_BODY,
    ErrorResponse,
    validation_message,
)
from reference_manager.api.common.fields import StageTypeName
from reference_manager.api.common.headers import prefer_parameter, prefers_minimal
from reference_manager.api.common.responses import (
    json_response,
    minimal_response,
    openapi_responses,
    preferred_response,
)
from reference_manager.api.common.strict import StrictRoute
from reference_manager.api.queues.requests import ClaimBody, ReportBody, SettleBody
from reference_manager.api.queues.responses import (
    BriefClaimedTasks,
    BriefSettledTasks,
    ClaimedTasks,
    Depth,
    SettledTasks,
)
from reference_manager.domain.requests import Report
from reference_manager.engine.dispatch.reports import Verdict
from reference_manager.engine.queues import TaskQueue

Answer = TypeVar("Answer")
_Attempt: TypeAlias = tuple[int | None, UUID]

_REPORTS = TypeAdapter[Sequence[ReportBody]](list[ReportBody])


def queues_router(queue: TaskQueue) -> APIRouter:
    """The routes of the queues."""
    router = APIRouter(prefix="/v1", tags=["work"], route_class=StrictRoute)

    @router.post(
        "/stages/{stageType}/tasks/claim",
        responses=openapi_responses({200: preferred_response(ClaimedTasks | BriefClaimedTasks)}, *WITH_A_BODY),
        openapi_extra={
            "parameters": [prefer_parameter("each task as its worker needs it, and stages and jobs once for all")]
        },
    )
    async def claim_tasks(stageType: StageTypeName, body: ClaimBody, request: Request) -> Response:
        """Claim tasks of a stage type under leases; where there are none, wait for the first."""
        minimal = prefers_minimal(request)
        claimed = await _while_connected(request, queue.claim(stageType, body.request(minimal=minimal))) or ()
        tasks = ",".join(part.bodies for part in claimed)
        if not minimal:
            return json_response(f'{{"tasks":[{tasks}]}}')
        return minimal_response(f'{{"tasks":[{tasks}],"stages":[{",".join(str(part.context) for part in claimed)}]}}')

    @router.post(
        "/tasks/settle",
        responses=openapi_responses({200: preferred_response(SettledTasks | BriefSettledTasks)}, *WITH_A_BODY),
        openapi_extra={"parameters": [prefer_parameter("how many reports were accepted, and which were not")]},
    )
    async def settle_tasks(body: SettleBody, request: Request) -> Response:
        """Report how attempts ended. Each report is taken or refused for itself; what is said again counts once."""
        verdicts = await _settle(queue, body.worker_id, body.results)
        if not prefers_minimal(request):
            results = [_settled(item, verdict) for item, verdict in zip(body.results, verdicts, strict=True)]
            return json_response(to_json({"results": results}).decode())
        refused = [
            _settled(body.results[place], verdict) | {"index": place}
            for place, verdict in enumerate(verdicts)
            if isinstance(verdict, ValidationError) or verdict.target is None
        ]
        answer = {"accepted": len(verdicts) - len(refused), "refused": refused}
        return minimal_response(to_json(answer).decode())

    @router.get("/queues/{stageType}/depth", responses=openapi_responses({200: Depth}))
    async def get_queue_depth(stageType: StageTypeName) -> Response:
        """How many tasks of a stage type wait and are in progress: what an autoscaler asks."""
        return json_response(await queue.depth(stageType))

    return router


async def _while_connected(request: Request, future: asyncio.Future[Answer]) -> Answer | None:
    """The future's result; or None, and the future is cancelled, once the client has hung up."""
    hung_up = asyncio.ensure_future(request.receive())  # the body has been read: all that can come is the end
    try:
        await asyncio.wait((future, hung_up), return_when=asyncio.FIRST_COMPLETED)
        return future.result() if future.done() else None
    finally:
        hung_up.cancel()
        future.cancel()


async def _settle(queue: TaskQueue, worker_id: str, items: Sequence[object]) -> Sequence[Verdict | ValidationError]:
    """What becomes of each item; of what is said of one attempt in one request, the first counts."""
    reports = [body if isinstance(body, ValidationError) else body.request(worker_id) for body in _checked(items)]
    said: dict[_Attempt, Report] = {}
    for report in reports:
        if isinstance(report, Report):
            said.setdefault((report.lease_id, report.task_id), report)
    verdicts = dict(zip(said, await queue.settle(list(said.values())) if said else (), strict=True))
    return [verdicts[report.lease_id, report.task_id] if isinstance(report, Report) else report for report in reports]


def _checked(items: Sequence[object]) -> Sequence[ReportBody | ValidationError]:
    """Each item as it should be, or what is wrong with it."""
    try:
        return _REPORTS.validate_python(items)
    except ValidationError:
        return [_checked_alone(item) for item in items]


def _checked_alone(item: object) -> ReportBody | ValidationError:
    try:
        return ReportBody.model_validate(item)
    except ValidationError as error:
        return error


def _settled(item: object, verdict: Verdict | ValidationError) -> dict[str, Any]:
    if isinstance(verdict, ValidationError):
        return _refused(item, ErrorResponse(400, "VALIDATION_ERROR", validation_message(verdict.errors()[0])))
    if verdict.target is not None:
        return {**_names(item), "accepted": True, "status": verdict.target}
    if verdict.source is None:
        return _refused(item, TASK_NOT_FOUND)
    return _refused(item, LEASE_LOST) | {"status": verdict.source}


def _refused(item: object, error: ErrorResponse) -> dict[str, Any]:
    return {**_names(item), "accepted": False, "status": None, "code": error.code, "message": error.message}


def _names(item: object) -> dict[str, Any]:
    named = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    return {"taskId": named.get("taskId"), "leaseId": named.get("leaseId")}
