"""Routes of queues: claims and reports of many tasks at once, under leases, and depth."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json
from starlette.types import Scope

from reference_manager.access.errors import UnauthenticatedError
from reference_manager.api.common.access import READ, WORK, guard_in, principal_of
from reference_manager.api.common.disconnects import client_of
from reference_manager.api.common.errors import (
    LEASE_LOST,
    TASK_NOT_FOUND,
    UNDECIDED,
    WITH_A_BODY,
    ErrorResponse,
    describe_error,
    log_error,
)
from reference_manager.api.common.fields import StageTypeName
from reference_manager.api.common.headers import prefer_parameter, prefers_minimal
from reference_manager.api.common.responses import (
    json_response,
    minimal_response,
    openapi_responses,
    preferred_response,
)
from reference_manager.api.common.strict import StrictRoute, converted
from reference_manager.api.queues.requests import ClaimBody, SettleBody, Settlement
from reference_manager.api.queues.responses import (
    ClaimedTasks,
    Depth,
    MinimalClaimedTasks,
    MinimalSettledTasks,
    SettledTasks,
)
from reference_manager.domain.commands import Report
from reference_manager.engine.dispatch.reports import Verdict
from reference_manager.engine.queues import TaskQueue

_Attempt: TypeAlias = tuple[int | None, UUID]


def queues_router(queue: TaskQueue) -> APIRouter:
    """Build the routes of queues."""
    router = APIRouter(prefix="/v1", tags=["work"], route_class=StrictRoute)

    @router.post(
        "/stages/{stageType}/tasks/claim",
        responses=openapi_responses({200: preferred_response(ClaimedTasks | MinimalClaimedTasks)}, *WITH_A_BODY),
        openapi_extra={
            "parameters": [
                prefer_parameter("only the fields of a task that its worker needs, and each stage with its job once")
            ]
        },
    )
    @WORK
    async def claim_tasks(stageType: StageTypeName, body: ClaimBody, request: Request) -> Response:
        """Claim tasks of a stage type under leases. If none is waiting, wait for the first."""
        return await claim_response(queue, stageType, body, request.scope, minimal=prefers_minimal(request))

    @router.post(
        "/tasks/settle",
        responses=openapi_responses({200: preferred_response(SettledTasks | MinimalSettledTasks)}, *WITH_A_BODY),
        openapi_extra={
            "parameters": [prefer_parameter("the number of accepted reports, and the results of the others")]
        },
    )
    @WORK
    async def settle_tasks(body: SettleBody, request: Request) -> Response:
        """Report outcomes of attempts. Each report is decided on its own; repeating a report is idempotent."""
        settlement = converted(request, body.request)
        if guard := guard_in(request.scope):
            await guard.check_tasks([report.task_id for report in settlement.reports if isinstance(report, Report)])
        return await settle_response(queue, settlement, minimal=prefers_minimal(request))

    @router.get("/queues/{stageType}/depth", responses=openapi_responses({200: Depth}))
    @READ
    async def get_queue_depth(stageType: StageTypeName) -> Response:
        """Count the waiting tasks and the tasks in progress of a stage type, for autoscalers."""
        return json_response(await queue.depth(stageType))

    return router


async def claim_response(
    queue: TaskQueue, stage_type: str, body: ClaimBody, scope: Scope, *, minimal: bool
) -> Response:
    """Claim tasks for a client, while it is connected. If its token was revoked while it waited, it gets none."""
    claim = body.request(minimal=minimal)
    release = partial(queue.release, stage_type, claim)
    client = client_of(scope)
    claimed = await client.wait_for(queue.claim(stage_type, claim), release) or ()
    if claimed and principal_of(scope).ended:
        client.sent()  # the tasks are released here, not once more if the client disconnects
        release(claimed)
        raise UnauthenticatedError("The token was revoked or expired while the claim waited", "invalid_token")
    if guard := guard_in(scope):
        guard.note(stage_type, (task_id for part in claimed for task_id in part.task_ids))
    tasks = ",".join(part.bodies for part in claimed)
    if not minimal:
        return json_response(f'{{"tasks":[{tasks}]}}')
    return minimal_response(f'{{"tasks":[{tasks}],"stages":[{",".join(str(part.context) for part in claimed)}]}}')


async def settle_response(queue: TaskQueue, settlement: Settlement, *, minimal: bool) -> Response:
    """Settle the reports of a worker, even if it disconnects meanwhile."""
    verdicts = await _settle(queue, settlement.reports)
    if not minimal:
        results = [_settled(ids, verdict) for ids, verdict in zip(settlement.ids, verdicts, strict=True)]
        return json_response(to_json({"results": results}, inf_nan_mode="null").decode())
    others = [
        _settled(settlement.ids[index], verdict) | {"index": index}
        for index, verdict in enumerate(verdicts)
        if isinstance(verdict, ErrorResponse) or verdict.target is None
    ]
    refused = [result for result in others if result["code"] != UNDECIDED.code]
    answer: dict[str, Any] = {"accepted": len(verdicts) - len(others), "refused": refused}
    if len(refused) < len(others):
        # Not among the refused ones: an older worker counts the results, finds too few, and sends its request again.
        answer["undecided"] = [result for result in others if result["code"] == UNDECIDED.code]
    return minimal_response(to_json(answer, inf_nan_mode="null").decode())


async def _settle(queue: TaskQueue, reports: Sequence[Report | ErrorResponse]) -> Sequence[Verdict | ErrorResponse]:
    """Return the verdict on each item. Of several reports of one attempt in one request, the first counts."""
    valid = [report for report in reports if isinstance(report, Report)]
    if len({report.lease_id for report in valid}) == len(reports):  # nearly always; the rest takes three times as long
        return await _decide(queue, valid)
    distinct: dict[_Attempt, Report] = {}
    for report in valid:
        distinct.setdefault((report.lease_id, report.task_id), report)
    verdicts = dict(zip(distinct, await _decide(queue, list(distinct.values())) if distinct else (), strict=True))
    return [verdicts[report.lease_id, report.task_id] if isinstance(report, Report) else report for report in reports]


async def _decide(queue: TaskQueue, reports: Sequence[Report]) -> Sequence[Verdict | ErrorResponse]:
    results = await queue.settle_partial(reports)
    for error in {id(error): error for error in results if isinstance(error, Exception)}.values():
        log_error(error, describe_error(error))
    return [result if isinstance(result, Verdict) else UNDECIDED for result in results]


def _settled(ids: Mapping[str, Any], verdict: Verdict | ErrorResponse) -> dict[str, Any]:
    item = {"taskId": ids["taskId"], "leaseId": ids["leaseId"]}
    if isinstance(verdict, ErrorResponse):
        return _refused(item, verdict)
    if verdict.target is not None:
        return item | {"accepted": True, "status": verdict.target}
    if verdict.source is None:
        return _refused(item, TASK_NOT_FOUND)
    return _refused(item, LEASE_LOST) | {"status": verdict.source}


def _refused(item: dict[str, Any], error: ErrorResponse) -> dict[str, Any]:
    return item | {"accepted": False, "status": None, "code": error.code, "message": error.message}
