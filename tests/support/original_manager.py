"""The original TypeScript manager 0.2.1 and its successor, whose lists have numbered pages, as recorded."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast
from uuid import UUID

import httpx2
from jobnik_sdk.model.definitions import JobStatus
from jobnik_sdk.testing.fake.manager import FakeManager
from jobnik_sdk.testing.fake.state import Job, Stage, State, Task
from jobnik_sdk.testing.fake.transitions import JOB_FINAL
from typing_extensions import override

Json = Any

PAGE_SIZE: Final = 10
"""The size of a page without `page_size`."""
MAX_PAGE_SIZE: Final = 100

_LISTS: Final = re.compile(r"/v1/(jobs|stages|tasks|jobs/[^/]+/stages|stages/[^/]+/tasks)")


class OriginalManager(httpx2.AsyncBaseTransport):
    """A transport to a manager in memory that answers exactly as recorded.

    It corrects the answers of the fake manager where the original manager deviates from part A of the protocol.

    Args:
        has_pages: Whether it is the successor: every list is a page.
    """

    def __init__(self, *, has_pages: bool) -> None:
        self._fake = FakeManager(part_a_only=True).transport
        self._has_pages = has_pages

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        match request.method, request.url.path.split("/")[2:]:
            case "POST", ["jobs"]:
                response = await self._send(request, _with_defaults(_body(request), {"priority": "VERY_LOW"}))
            case "POST", ["stages", _, "tasks"]:
                response = await self._add_tasks(request)
            case "PUT", ["jobs", job_id, "status"] if _body(request) == {"status": "ABORTED"}:
                response = self._abort(UUID(job_id)) or await self._send(request)
            case "PUT", ["tasks", task_id, "status"]:
                self._move_to_the_end(UUID(task_id))
                response = await self._send(request)
            case "GET", _ if self._has_pages and _LISTS.fullmatch(request.url.path):
                response = await self._list(request)
            case _:
                response = await self._send(request)
        return _with_original_message(response, request)

    async def _send(
        self, request: httpx2.Request, body: Json = None, query: httpx2.QueryParams | None = None
    ) -> httpx2.Response:
        url = request.url if query is None else request.url.copy_with(params=query)
        content = request.content if body is None else json.dumps(body).encode()
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        return await self._fake.handle_async_request(
            httpx2.Request(request.method, url, headers=headers, content=content)
        )

    async def _add_tasks(self, request: httpx2.Request) -> httpx2.Response:
        """Add tasks, with one attempt each by default; an empty list is a failure."""
        tasks = _body(request)
        if isinstance(tasks, list):
            tasks = [_with_defaults(task, {"maxAttempts": 1}) for task in tasks]  # pyright: ignore[reportUnknownVariableType]
        response = await self._send(request, tasks)
        return _error(500, "UNKNOWN_ERROR", "Internal Server Error") if response.content == b"[]" else response

    def _abort(self, job_id: UUID) -> httpx2.Response | None:
        """Abort a job without its stages and tasks; return None if that is not possible."""
        with self._fake.locked() as state:
            job = state.jobs.get(job_id)
            if job is None or job.status in JOB_FINAL:
                return None
            job.status, job.updated = JobStatus.ABORTED, state.now
        return httpx2.Response(200, json={"code": "JOB_MODIFIED_SUCCESSFULLY"})

    def _move_to_the_end(self, task_id: UUID) -> None:
        """Let other tasks be claimed before this one if it is retried."""
        with self._fake.locked() as state:
            task = state.tasks.get(task_id)
            if task is not None:
                task.number = state.new_entity_fields()["number"]

    async def _list(self, request: httpx2.Request) -> httpx2.Response:
        """Return a page of a list; the entities that were changed last are at its end, except for stages of a job."""
        query = request.url.params
        page, size = int(query.get("page", 1)), int(query.get("page_size", PAGE_SIZE))
        if page < 1 or not 1 <= size <= MAX_PAGE_SIZE:
            return _error(400, "VALIDATION_ERROR", "request/query/page_size must be <= 100")
        response = await self._send(request, query=query.remove("page").remove("page_size"))
        if response.status_code != HTTPStatus.OK:
            return response
        items: list[dict[str, Json]] = response.json()
        if not request.url.path.endswith("/stages") or request.url.path == "/v1/stages":
            with self._fake.locked() as state:
                items.sort(key=lambda item: _entity(state, item["id"]).updated)
        return httpx2.Response(200, json={"total": len(items), "items": items[(page - 1) * size : page * size]})


def _entity(state: State, entity_id: str) -> Job | Stage | Task:
    key = UUID(entity_id)
    return state.jobs.get(key) or state.stages.get(key) or state.tasks[key]


def _body(request: httpx2.Request) -> Json:
    try:
        return json.loads(request.content)
    except ValueError:
        return None


def _with_defaults(body: Json, defaults: Mapping[str, Json]) -> Json:
    return {**defaults, **cast("dict[str, Json]", body)} if isinstance(body, dict) else body


def _error(status: int, code: str, message: str) -> httpx2.Response:
    return httpx2.Response(status, json={"message": message, "code": code})


def _with_original_message(response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
    """Return a response with the original's message for an invalid request, where it is known."""
    body: Json = json.loads(response.content) if response.content else None
    if response.status_code != HTTPStatus.BAD_REQUEST or body["code"] != "VALIDATION_ERROR":
        return response
    message: str = body["message"]
    place, _, mistake = message.partition(": ")
    match place.split("."), mistake:
        case ["body", name], "Field required":
            message = f"request/body must have required property '{name}'"
        case ["body", index, name], "Field required":
            message = f"request/body/{index} must have required property '{name}'"
        case ["path", "id"], _:
            message = f'request/params/{request.url.path.split("/")[2].rstrip("s")}Id must match format "uuid"'
        case ["query", name], "Unknown parameter":
            message = f"Unknown query parameter '{name}'"
        case _:
            return response
    return _error(response.status_code, "VALIDATION_ERROR", message)
