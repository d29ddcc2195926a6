"""The protocol's table of endpoints: the method of the model that each request means."""

from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from tests.model import part_a
from tests.model.entities import MINIMAL, Answer, Json
from tests.model.leases import NOTHING
from tests.model.model import Model

LATER = "LATER"
"""The method of a request that is none: time passes, and maintenance runs."""


class Request(NamedTuple):
    """An HTTP request; ids in its path and body are the model's names for them, such as ``/v1/tasks/task-3``.

    With the method ``LATER``, the path names the moment that comes, and the body lists the tasks that it comes for.
    """

    method: str
    path: str
    body: Json = None
    prefer: str | None = None
    """The header ``Prefer``."""


def due(model: Model, request: Request) -> Answer:
    """Return the answer that is due, after changing the model as the manager must have changed."""
    if not model.part_a_only or request.method == LATER:
        return _due(model, request)
    refusal = part_a.refusal(request.method, request.path, request.body)
    return refusal or part_a.shown(_due(model, request._replace(prefer=None)))


def _due(model: Model, request: Request) -> Answer:  # noqa: C901, PLR0911, PLR0912 - a table, not a decision
    path, _, query = request.path.partition("?")
    wanted = dict[str, Any](parse_qsl(query))
    body, minimal = request.body, request.prefer == MINIMAL
    match request.method, path.removeprefix("/v1/").split("/"):
        case "POST", ["jobs"]:
            return model.create_job(body)
        case "GET", ["jobs"]:
            return model.list_jobs(**wanted)
        case "GET", ["jobs", job]:
            return model.get_job(job, **wanted)
        case "DELETE", ["jobs", job]:
            return model.delete_job(job)
        case "PATCH", ["jobs" | "stages" | "tasks" as entities, entity, "user-metadata"]:
            return model.set_metadata(entities, entity, body)
        case "PATCH", ["jobs", job, "priority"]:
            return model.set_priority(job, body["priority"])
        case "PUT", ["jobs", job, "status"]:
            return model.set_job_status(job, body["status"])
        case "GET", ["jobs", job, "stages"]:
            return model.list_stages_of_job(job, **wanted)
        case "POST", ["jobs", job, "stage"]:
            return model.add_stage(job, body)
        case "GET", ["stages"]:
            return model.list_stages(**wanted)
        case "GET", ["stages", stage]:
            return model.get_stage(stage, **wanted)
        case "GET", ["stages", stage, "summary"]:
            return model.get_summary(stage)
        case "PUT", ["stages", stage, "status"]:
            return model.release_stage(stage, body["status"])
        case "GET", ["stages", stage, "tasks"]:
            return model.list_tasks_of_stage(stage)
        case "POST", ["stages", stage, "tasks"]:
            return model.add_tasks(stage, body, minimal=minimal)
        case "PATCH", ["stages", stage_type, "tasks", "dequeue"]:
            return model.dequeue(stage_type)
        case "POST", ["stages", stage_type, "tasks", "claim"]:
            return model.claim_tasks(stage_type, body, minimal=minimal)
        case "GET", ["tasks"]:
            return model.list_tasks(**wanted)
        case "GET", ["tasks", task]:
            return model.get_task(task)
        case "PUT", ["tasks", task, "status"]:
            return model.settle_task(task, body["status"])
        case "POST", ["tasks", "settle"]:
            return model.settle_tasks(body, minimal=minimal)
        case "POST", ["workers", worker, "heartbeat"]:
            return model.heartbeat(worker, body)
        case "PUT", ["workers", worker]:
            return model.order_worker(worker, body)
        case "GET", ["tasks", task, "attempts"]:
            return model.list_attempts(task)
        case "GET", ["jobs" | "stages" | "tasks" as entities, entity, "history"]:
            return model.get_history(entities, entity)
        case "GET", ["queues", stage_type, "depth"]:
            return model.get_depth(stage_type)
        case "LATER", ["leases"]:
            return model.end_leases(body)
        case "LATER", ["deadlines"]:
            return model.end_leases(body, timed_out=True)
        case "LATER", ["delays"]:
            return model.wake(body)
        case "LATER", ["duties"]:
            return NOTHING
        case _:
            raise ValueError(f"The model does not know {request.method} {request.path}")
