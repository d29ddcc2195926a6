"""The endpoints of workers, queues and the manager itself."""

from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from jobnik_sdk.testing.fake import bodies, wire
from jobnik_sdk.testing.fake.dispatch import STALE_AFTER
from jobnik_sdk.testing.fake.endpoints import Endpoints, Route, done
from jobnik_sdk.testing.fake.queries import PageQuery, Query
from jobnik_sdk.testing.fake.requests import MINIMAL, Answer, NotYet, Request, page_of
from jobnik_sdk.testing.fake.state import RefusedRequestError

FEATURES: Final = (
    *("claim", "settle", "leases", "heartbeat", "workers", "attempts", "results", "checkpoints", "history"),
    *("progress", "depth", "retry-policy", "task-defaults", "weighted-progress"),
    *("job-tree", "unique-jobs", "minimal-answers", "lists", "list-filters", "idempotency-keys"),
)


class WorkerEndpoints(Endpoints):
    """The endpoints of workers, queues and the manager itself."""

    def catch_up(self) -> None:
        """Apply the events since the last request."""
        self._dispatcher.catch_up()

    def routes(self) -> Sequence[Route]:
        """Return all routes."""
        return (
            Route("PATCH", "/v1/stages/{stageType}/tasks/dequeue", self._dequeue),
            Route("PUT", "/v1/tasks/{id}/status", self._report),
            Route("GET", "/liveness", self._alive),
            Route("GET", "/readiness", self._ready),
            Route("GET", "/v1/capabilities", self._capabilities, part_b=True),
            Route("POST", "/v1/stages/{stageType}/tasks/claim", self._claim, part_b=True),
            Route("POST", "/v1/tasks/settle", self._settle, part_b=True),
            Route("POST", "/v1/workers/{workerId}/heartbeat", self._heartbeat, part_b=True),
            Route("GET", "/v1/workers", self._list_workers, part_b=True),
            Route("PUT", "/v1/workers/{workerId}", self._set_drain, part_b=True),
            Route("DELETE", "/v1/workers/{workerId}", self._remove_worker, part_b=True),
            Route("GET", "/v1/queues/{stageType}/depth", self._get_depth, part_b=True),
        )

    def _dequeue(self, request: Request) -> Answer:
        request.query(Query)
        claimed = self._dispatcher.claim(_stage_type(request), 1, None, STALE_AFTER)
        if not claimed:
            raise RefusedRequestError(404, "TASK_NOT_FOUND", "No task of this type is waiting")
        return Answer(200, wire.task_json(claimed[0]))

    def _report(self, request: Request) -> Answer:
        request.query(Query)
        body = request.body(bodies.TaskStatusBody)
        task = self._task(request)
        self._dispatcher.report(task, body.status)
        return Answer(200, wire.task_json(task))

    @staticmethod
    def _alive(request: Request) -> Answer:
        request.query(Query)
        return done("ALIVE")

    @staticmethod
    def _ready(request: Request) -> Answer:
        request.query(Query)
        return done("READY")

    @staticmethod
    def _capabilities(request: Request) -> Answer:
        request.query(Query)
        return Answer(200, {"protocol": "1", "version": version("jobnik-sdk"), "features": FEATURES})

    def _claim(self, request: Request) -> Answer | NotYet:
        request.query(Query)
        stage_type, body = _stage_type(request), request.body(bodies.ClaimBody)
        lease = timedelta(seconds=body.lease_seconds)
        claimed = self._dispatcher.claim(stage_type, body.limit, body.worker_id, lease)
        until = request.at + timedelta(seconds=body.wait_seconds)
        if not claimed and self._state.now < until:
            return NotYet(until)
        if not request.prefers_minimal:
            return Answer(200, {"tasks": [wire.claimed_json(task) for task in claimed]})
        stages = {task.stage.id: wire.stage_and_job_json(task.stage) for task in claimed}
        minimal = {"tasks": [wire.minimal_claimed_json(task) for task in claimed], "stages": [*stages.values()]}
        return Answer(200, minimal, MINIMAL)

    def _settle(self, request: Request) -> Answer:
        request.query(Query)
        body = request.body(bodies.SettleBody)
        results = [self._dispatcher.settle(body.worker_id, item) for item in body.results]
        if not request.prefers_minimal:
            return Answer(200, {"results": results})
        refused = [result | {"index": index} for index, result in enumerate(results) if not result["accepted"]]
        return Answer(200, {"accepted": len(results) - len(refused), "refused": refused}, MINIMAL)

    def _heartbeat(self, request: Request) -> Answer:
        request.query(Query)
        worker_id = request.parameter("workerId", bodies.NewWorkerId)
        return Answer(200, self._dispatcher.heartbeat(worker_id, request.body(bodies.HeartbeatBody)))

    def _list_workers(self, request: Request) -> Answer:
        query = request.query(PageQuery)
        workers = [((place, 0), worker) for place, worker in enumerate(self._dispatcher.workers())]
        return page_of(request, query, workers, wire.worker_json)

    def _set_drain(self, request: Request) -> Answer:
        request.query(Query)
        worker_id, body = _worker_id(request), request.body(bodies.DrainBody)
        worker = self._state.workers.get(worker_id)
        if worker is None:
            raise RefusedRequestError(404, "WORKER_NOT_FOUND", "There is no such worker")
        worker.drain_wanted = body.drain
        return Answer(200, wire.worker_json(worker))

    def _remove_worker(self, request: Request) -> Answer:
        request.query(Query)
        self._dispatcher.deregister(_worker_id(request))
        return done("WORKER_DELETED_SUCCESSFULLY")

    def _get_depth(self, request: Request) -> Answer:
        request.query(Query)
        return Answer(200, self._dispatcher.depth(_stage_type(request)))


def _stage_type(request: Request) -> str:
    return request.parameter("stageType", bodies.StageTypeName)


def _worker_id(request: Request) -> str:
    return request.parameter("workerId", bodies.WorkerId)
