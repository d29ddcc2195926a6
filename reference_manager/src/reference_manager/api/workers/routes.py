"""Routes of workers: heartbeats, the list of workers, and drain orders."""

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from reference_manager.access.limits import Owner
from reference_manager.api.common.access import ADMINISTER, READ, WORK, guard_in
from reference_manager.api.common.errors import WITH_A_BODY, WORKER_NOT_FOUND
from reference_manager.api.common.fields import NewWorkerId, WorkerId
from reference_manager.api.common.pagination import PageQuery, list_response, openapi_list_responses
from reference_manager.api.common.responses import WORKER_DELETED, code_response, json_response, openapi_responses
from reference_manager.api.common.strict import StrictRoute, converted
from reference_manager.api.workers.requests import DrainBody, HeartbeatBody
from reference_manager.api.workers.responses import HeartbeatResponse, Worker
from reference_manager.domain.commands import Heartbeat
from reference_manager.engine.workers import Workers


def workers_router(workers: Workers) -> APIRouter:
    """Build the routes of workers."""
    router = APIRouter(prefix="/v1", tags=["work"], route_class=StrictRoute)

    @router.post("/workers/{workerId}/heartbeat", responses=openapi_responses({200: HeartbeatResponse}, *WITH_A_BODY))
    @WORK
    async def heartbeat(workerId: NewWorkerId, body: HeartbeatBody, request: Request) -> Response:
        """Renew the leases of a worker, store the progress of its tasks, and return its orders."""
        command = converted(request, body.request, workerId)
        if guard := guard_in(request.scope):
            guard.check([Owner(stage_type, None) for stage_type in command.stage_types])
            await guard.check_tasks([task.task_id for task in command.running])
        return await heartbeat_response(workers, command)

    @router.get("/workers", responses=openapi_list_responses(Worker))
    @READ
    async def list_workers(page: PageQuery) -> Response:
        """List the workers that sent a heartbeat within the last hour, by id."""
        return await list_response(page, workers.list())

    @router.put("/workers/{workerId}", responses=openapi_responses({200: Worker}, WORKER_NOT_FOUND, *WITH_A_BODY))
    @ADMINISTER
    async def order_worker(workerId: WorkerId, body: DrainBody) -> Response:
        """Order a worker to drain. After its next heartbeat, it stops claiming, finishes its tasks and stops."""
        return json_response(await workers.order_drain(workerId, drain=body.drain))

    @router.delete("/workers/{workerId}", responses=openapi_responses({200: WORKER_DELETED}))
    @WORK
    async def remove_worker(workerId: WorkerId, request: Request) -> Response:
        """Deregister a worker. The tasks that it still holds return to the queue without using up an attempt."""
        if guard := guard_in(request.scope):
            await guard.check_leases(workerId)
        await workers.deregister(workerId)
        return code_response(WORKER_DELETED)

    return router


async def heartbeat_response(workers: Workers, heartbeat: Heartbeat) -> Response:
    """Record the heartbeat of a worker."""
    orders = await workers.record_heartbeat(heartbeat)
    return json_response(to_json(orders._asdict()).decode())
