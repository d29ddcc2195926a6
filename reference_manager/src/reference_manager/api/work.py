"""What workers ask: many tasks at once, leases, heartbeats."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from reference_manager.api.answers import (
    WORKER_DELETED,
    documented,
    done,
    found,
    found_minimal,
    preferred,
    preferring,
    prefers_minimal,
)
from reference_manager.api.bodies import StageTypeName
from reference_manager.api.errors import complaint
from reference_manager.api.refusals import OF_BODIES, WORKER_NOT_FOUND
from reference_manager.api.strict import StrictRoute
from reference_manager.api.work_bodies import ClaimBody, DrainBody, HeartbeatBody, ReportBody, SettleBody, WorkerId
from reference_manager.api.work_entities import (
    BriefClaimedTasks,
    BriefSettledTasks,
    ClaimedTasks,
    Depth,
    HeartbeatAnswer,
    SettledTasks,
    Worker,
)
from reference_manager.domain.requests import Report
from reference_manager.engine.queue import TaskQueue
from reference_manager.engine.settlements import Verdict
from reference_manager.engine.workers import Workers

Answer = TypeVar("Answer")
_Attempt: TypeAlias = tuple[int | None, UUID]

_REPORTS = TypeAdapter[Sequence[ReportBody]](list[ReportBody])


def work_router(queue: TaskQueue, workers: Workers) -> APIRouter:
    """The routes of workers."""
    router = APIRouter(prefix="/v1", tags=["work"], route_class=StrictRoute)

    @router.post(
        "/stages/{stageType}/tasks/claim",
        responses=documented({200: preferred(ClaimedTasks | BriefClaimedTasks)}, *OF_BODIES),
        openapi_extra={
            "parameters": [preferring("each task as its worker needs it, and stages and jobs once for all")]
        },
    )
    async def claim_tasks(stageType: StageTypeName, body: ClaimBody, request: Request) -> Response:
        """Claim tasks of a stage type under leases; where there are none, wait for the first."""
        brief = prefers_minimal(request)
        claimed = await _while_connected(request, queue.claim(stageType, body.request(brief=brief))) or ()
        tasks = ",".join(part.bodies for part in claimed)
        if not brief:
            return found(f'{{"tasks":[{tasks}]}}')
        return found_minimal(f'{{"tasks":[{tasks}],"stages":[{",".join(str(part.context) for part in claimed)}]}}')

    @router.post(
        "/tasks/settle",
        responses=documented({200: preferred(SettledTasks | BriefSettledTasks)}, *OF_BODIES),
        openapi_extra={"parameters": [preferring("how many reports were accepted, and which were not")]},
    )
    async def settle_tasks(body: SettleBody, request: Request) -> Response:
        """Report how attempts ended. Each report is taken or refused for itself; what is said again counts once."""
        verdicts = await _settle(queue, body.worker_id, body.results)
        if not prefers_minimal(request):
            results = [_settled(item, verdict) for item, verdict in zip(body.results, verdicts, strict=True)]
            return found(to_json({"results": results}).decode())
        refused = [
            _settled(body.results[place], verdict) | {"index": place}
            for place, verdict in enumerate(verdicts)
            if isinstance(verdict, ValidationError) or verdict.target is None
        ]
        answer = {"accepted": len(verdicts) - len(refused), "refused": refused}
        return found_minimal(to_json(answer).decode())

    @router.post("/workers/{workerId}/heartbeat", responses=documented({200: HeartbeatAnswer}, *OF_BODIES))
    async def heartbeat(workerId: WorkerId, body: HeartbeatBody) -> Response:
        """Say that a worker is alive: renews its leases, keeps the progress of its tasks, brings back its orders."""
        orders = await workers.keep(body.request(workerId))
        return found(to_json(orders._asdict()).decode())

    @router.get("/workers", responses=documented({200: list[Worker]}))
    async def list_workers() -> Response:
        """List the workers that sent a heartbeat within the last hour, by name."""
        return found(await workers.list())

    @router.put("/workers/{workerId}", responses=documented({200: Worker}, WORKER_NOT_FOUND, *OF_BODIES))
    async def order_worker(workerId: WorkerId, body: DrainBody) -> Response:
        """Tell a worker to drain: it hears it with its next heartbeat, claims no more, finishes and stops."""
        return found(await workers.order_drain(workerId, drain=body.drain))

    @router.delete("/workers/{workerId}", responses=documented({200: WORKER_DELETED}))
    async def remove_worker(workerId: WorkerId) -> Response:
        """Say that a worker has ended: what it still holds goes back to the queue, and no attempt is burnt."""
        await workers.leave(workerId)
        return done(WORKER_DELETED)

    @router.get("/queues/{stageType}/depth", responses=documented({200: Depth}))
    async def get_queue_depth(stageType: StageTypeName) -> Response:
        """How many tasks of a stage type wait and are in progress: what an autoscaler asks."""
        return found(await queue.depth(stageType))

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
        return _refused(item, "VALIDATION_ERROR", complaint(verdict.errors()[0]))
    if verdict.target is not None:
        return {**_names(item), "accepted": True, "status": verdict.target}
    if verdict.source is None:
        return _refused(item, "TASK_NOT_FOUND", "There is no such task")
    message = "The lease is not, or no longer, the worker's: nothing was changed"
    return _refused(item, "LEASE_LOST", message) | {"status": verdict.source}


def _refused(item: object, code: str, message: str) -> dict[str, Any]:
    return {**_names(item), "accepted": False, "status": None, "code": code, "message": message}


def _names(item: object) -> dict[str, Any]:
    named = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    return {"taskId": named.get("taskId"), "leaseId": named.get("leaseId")}
