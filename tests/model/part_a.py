"""Part A of the protocol: what a manager without part B does not know.

A manager that serves part A alone treats an endpoint, a query parameter or a field of part B as unknown, ignores the
header ``Prefer``, and leaves the fields of part B out of its answers. It imitates the original manager, which has fewer
times, too.
"""

from collections.abc import Iterator
from typing import cast
from urllib.parse import parse_qsl

from tests.model.entities import Answer, Body, Json
from tests.model.stored import refused

NOT_FOUND = refused(404, "NOT_FOUND")
NOT_ALLOWED = refused(405, "METHOD_NOT_ALLOWED")
INVALID = refused(400, "VALIDATION_ERROR")

_QUERY = frozenset({"should_return_progress"})
_FIELDS = frozenset(
    (
        *("stages", "uniqueKey", "uniqueFor"),
        *("weight", "taskDefaults"),
        *("timeoutSeconds", "retry", "availableAt", "delaySeconds"),
    )
)
"""Fields of new jobs, stages and tasks; no two kinds of entity give the same name to different fields."""
_ANSWERED = frozenset({"createdAt", "updatedAt", "endedAt", "error", "aborted"})
"""Fields of entities and summaries in answers. The others need a request of part B first."""
_TIMES = frozenset({"startTime", "endTime"})
"""Times that are left out until they are set."""
_STAGE_TIMES = _TIMES | {"creationTime", "updateTime"}


def is_part_b(method: str, path: str) -> bool:
    """Whether only part B has this endpoint."""
    match method, path.partition("?")[0].removeprefix("/v1/").split("/"):
        case "POST", ["tasks", "settle"] | ["stages", _, "tasks", "claim"]:
            return True
        case _, ["workers", *_]:
            return True
        case "GET", ["tasks", _, "attempts"] | ["jobs" | "stages" | "tasks", _, "history"] | ["queues", _, "depth"]:
            return True
        case _:
            return False


def refusal(method: str, path: str, body: Json) -> Answer | None:
    """The answer to a request that needs part B; None if part A is enough."""
    if is_part_b(method, path):
        # The path of a task, which can be read but not posted to, has the same form as this one.
        return NOT_ALLOWED if path == "/v1/tasks/settle" else NOT_FOUND
    wanted = {name for name, _ in parse_qsl(path.partition("?")[2])}
    if wanted & _QUERY or (method == "POST" and any(item.keys() & _FIELDS for item in _objects(body))):
        return INVALID
    return None


def plain(body: Json) -> Json:
    """A body of a new job, stage, or list of tasks without the fields of part B."""
    if isinstance(body, list):
        return [plain(item) for item in cast("list[Body]", body)]
    if isinstance(body, dict):
        return {name: value for name, value in cast("Body", body).items() if name not in _FIELDS}
    return body


def shown(answer: Answer) -> Answer:
    """An answer without the fields of part B."""
    return answer._replace(body=_shown(answer.body))


def _shown(body: Json) -> Json:
    if isinstance(body, list):
        return [_shown(item) for item in cast("list[Json]", body)]
    if not isinstance(body, dict):
        return body
    fields = cast("Body", body)
    unknown = _ANSWERED | (_STAGE_TIMES if "jobId" in fields else {name for name in _TIMES if not fields.get(name)})
    return {
        name: _shown(value) if name in {"stages", "tasks", "summary"} else value
        for name, value in fields.items()
        if name not in unknown
    }


def _objects(body: Json) -> Iterator[Body]:
    items = cast("list[Json]", body) if isinstance(body, list) else [body]
    return (cast("Body", item) for item in items if isinstance(item, dict))
