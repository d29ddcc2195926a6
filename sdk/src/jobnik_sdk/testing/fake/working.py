"""The endpoints of workers and of those who watch them."""

from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from jobnik_sdk.testing.fake import bodies, wire
from jobnik_sdk.testing.fake.endpoints import Endpoints, Route, done
from jobnik_sdk.testing.fake.queries import Query
from jobnik_sdk.testing.fake.requests import MINIMAL, Answer, Asked, Waiting
from jobnik_sdk.testing.fake.state import Refused
from jobnik_sdk.testing.fake.work import STALE_AFTER

FEATURES: Final = (
    *("claim", "settle", "leases", "heartbeat", "workers", "attempts", "results", "checkpoints", "history"),
    *("progress", "depth", "retry-policy", "task-defaults", "weighted-progress"),
    *("job-tree", "unique-jobs", "minimal-answers", "lists"),
)


class WorkEndpoints(Endpoints):
    """What is asked of the queue."""

    def catch_up(self) -> None:
        """Do what the time has brought since the last request."""
        self._work.catch_up()

    def routes(self) -> Sequence[Route]:
        """All of them."""
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
            Route("PUT", "/v1/workers/{workerId}", self._order_worker, part_b=True),
            Route("DELETE", "/v1/workers/{workerId}", self._remove_worker, part_b=True),
            Route("GET", "/v1/queues/{stageType}/depth", self._get_depth, part_b=True),
        )

    def _dequeue(self, asked: Asked) -> Answer:
        asked.query(Query)
        claimed = self._work.claim(_stage_type(asked), 1, None, STALE_AFTER)
        if not claimed:
            raise Refused(404, "TASK_NOT_FOUND", "No task of this type is waiting")
        return Answer(200, self._task_json(claimed[0]))

    def _report(self, asked: Asked) -> Answer:
        asked.query(Query)
        body = asked.body(bodies.TaskStatusBody)
        task = self._task(asked)
        self._work.report(task, body.status)
        return Answer(200, self._task_json(task))

    @staticmethod
    def _alive(asked: Asked) -> Answer:
        asked.query(Query)
        return done("ALIVE")

    @staticmethod
    def _ready(asked: Asked) -> Answer:
        asked.query(Query)
        return done("READY")

    @staticmethod
    def _capabilities(asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, {"protocol": "1", "version": version("jobnik-sdk"), "features": FEATURES})

    def _claim(self, asked: Asked) -> Answer | Waiting:
        asked.query(Query)
        stage_type, body = _stage_type(asked), asked.body(bodies.ClaimBody)
        lease = timedelta(seconds=body.lease_seconds)
        claimed = self._work.claim(stage_type, body.limit, body.worker_id, lease)
        until = asked.at + timedelta(seconds=body.wait_seconds)
        if not claimed and self._state.now() < until:
            return Waiting(until)
        if not asked.prefers_minimal:
            return Answer(200, {"tasks": [wire.claimed_json(task) for task in claimed]})
        stages = {task.stage.id: wire.stage_and_job_json(task.stage) for task in claimed}
        brief = {"tasks": [wire.brief_json(task) for task in claimed], "stages": [*stages.values()]}
        return Answer(200, brief, MINIMAL)

    def _settle(self, asked: Asked) -> Answer:
        asked.query(Query)
        body = asked.body(bodies.SettleBody)
        results = [self._work.settle(body.worker_id, item) for item in body.results]
        if not asked.prefers_minimal:
            return Answer(200, {"results": results})
        refused = [result | {"index": index} for index, result in enumerate(results) if not result["accepted"]]
        return Answer(200, {"accepted": len(results) - len(refused), "refused": refused}, MINIMAL)

    def _heartbeat(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, self._work.keep(_worker_id(asked), asked.body(bodies.HeartbeatBody)))

    def _list_workers(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, [wire.worker_json(worker) for worker in self._work.workers()])

    def _order_worker(self, asked: Asked) -> Answer:
        asked.query(Query)
        worker_id, body = _worker_id(asked), asked.body(bodies.DrainBody)
        worker = self._state.workers.get(worker_id)
        if worker is None:
            raise Refused(404, "WORKER_NOT_FOUND", "There is no such worker")
        worker.drain_wanted = body.drain
        return Answer(200, wire.worker_json(worker))

    def _remove_worker(self, asked: Asked) -> Answer:
        asked.query(Query)
        self._work.leave(_worker_id(asked))
        return done("WORKER_DELETED_SUCCESSFULLY")

    def _get_depth(self, asked: Asked) -> Answer:
        asked.query(Query)
        return Answer(200, self._work.depth(_stage_type(asked)))


def _stage_type(asked: Asked) -> str:
    return asked.parameter("stageType", bodies.StageTypeName)


def _worker_id(asked: Asked) -> str:
    return asked.parameter("workerId", bodies.WorkerId)
