"""A short cut for the two requests that workers make all day: claim a task, report a task.

It sits below the framework, which takes several times as long for them as the work itself does. It serves well-formed
requests only; whatever is unusual about one is left to the framework's routes of the same path, which also stand in the
OpenAPI document, so that there is one place for validation and its messages.
"""

from collections.abc import Awaitable
from urllib.parse import unquote_to_bytes
from uuid import UUID

from pydantic import TypeAdapter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reference_manager.api.bodies import StageTypeName, TaskStatusBody
from reference_manager.api.errors import answer
from reference_manager.domain.states import TaskStatus
from reference_manager.engine.queue import TaskQueue

STAGE_TYPE = TypeAdapter[str](StageTypeName)
LONGEST_REPORT = 1024
JSON_HEADERS = [(b"content-type", b"application/json")]


class FastLane:
    """ASGI middleware: serves claims and reports itself, passes everything else on."""

    def __init__(self, app: ASGIApp, queue: TaskQueue) -> None:
        self._app = app
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and not scope["query_string"]:
            match scope["method"], scope["raw_path"].split(b"/"):
                case "PATCH", [b"", b"v1", b"stages", raw_type, b"tasks", b"dequeue"]:
                    if stage_type := _stage_type(raw_type):
                        return await _respond(self._queue.claim(stage_type), scope, receive, send)
                case "PUT", [b"", b"v1", b"tasks", raw_id, b"status"]:
                    return await self._report(raw_id, scope, receive, send)
                case _:
                    pass
        return await self._app(scope, receive, send)

    async def _report(self, raw_id: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        report = _task_report(raw_id, scope, message)
        if report is None:
            await self._app(scope, _replaying(message, receive), send)
        else:
            await _respond(self._queue.settle(*report), scope, receive, send)


def _stage_type(raw: bytes) -> str | None:
    """A stage type as it stands in the path, or None if anything about it is unusual."""
    try:
        return STAGE_TYPE.validate_python(unquote_to_bytes(raw).decode())
    except ValueError:
        return None


def _task_report(raw_id: bytes, scope: Scope, message: Message) -> tuple[UUID, TaskStatus] | None:
    """The task's id and its outcome, or None if anything about the request is unusual."""
    body = message.get("body", b"")
    if message.get("more_body") or len(body) > LONGEST_REPORT:
        return None
    if (b"content-type", b"application/json") not in scope["headers"]:
        return None
    try:
        return UUID(raw_id.decode("ascii")), TaskStatus(TaskStatusBody.model_validate_json(body).status)
    except ValueError:
        return None


async def _respond(work: Awaitable[str], scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = (await work).encode()
    except Exception as error:  # noqa: BLE001 - every error has its answer
        await answer(error)(scope, receive, send)
        return
    headers = [*JSON_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _replaying(first: Message, receive: Receive) -> Receive:
    """A receive that gives the message that was already taken, then the rest."""
    pending: list[Message] = [first]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
