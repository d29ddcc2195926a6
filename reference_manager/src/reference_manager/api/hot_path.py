"""Which requests take the short cut: the two that workers make all day, claim a task and report a task.

They are answered without the framework, which takes several times as long for them as the work itself does. Only
well-formed requests are; whatever is unusual about one is left to the framework's routes of the same path, which also
stand in the OpenAPI document, so that there is one place for validation and its messages.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes
from uuid import UUID

from pydantic import TypeAdapter

from reference_manager.api.common.fields import Id, StageTypeName
from reference_manager.api.tasks.requests import TaskStatusBody
from reference_manager.domain.states import TaskStatus
from reference_manager.engine.queues import TaskQueue, only_entity, only_task

STAGE_TYPE = TypeAdapter[str](StageTypeName)
ID = TypeAdapter[UUID](Id)
LONGEST_BODY = 1024
"""Bytes; a report is far shorter."""


class Work(NamedTuple):
    """A request that is being served."""

    future: asyncio.Future[Any]
    entity: Callable[[Any], str]
    """The entity as JSON, from the future's result; or the error that is the answer."""


class HotPath:
    """Starts claims and reports straight on the queue."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    @staticmethod
    def may_serve(method: bytes, path: bytes) -> bool:
        """Whether a request that begins like this is one to keep until its body is there."""
        return (method == b"PATCH" and path.endswith(b"/dequeue")) or (method == b"PUT" and path.endswith(b"/status"))

    def serve(self, method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Work | None:
        """Begin to serve; None if anything about the request is unusual."""
        match method, path.split(b"/"):
            case b"PATCH", [b"", b"v1", b"stages", raw_type, b"tasks", b"dequeue"]:
                stage_type = _stage_type(raw_type)
                return None if stage_type is None else Work(self._queue.claim(stage_type), only_task)
            case b"PUT", [b"", b"v1", b"tasks", raw_id, b"status"]:
                report = _task_report(raw_id, headers, body)
                if report is None:
                    return None
                task_id, outcome = report
                return Work(self._queue.settle_without_lease(task_id, outcome), partial(only_entity, outcome=outcome))
            case _:
                return None


def _stage_type(raw: bytes) -> str | None:
    """A stage type as it stands in the path."""
    try:
        return STAGE_TYPE.validate_python(unquote_to_bytes(raw).decode())
    except ValueError:
        return None


def _task_report(raw_id: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[UUID, TaskStatus] | None:
    """The task's id and its outcome."""
    if (b"content-type", b"application/json") not in headers:
        return None
    try:
        return ID.validate_python(raw_id.decode("ascii")), TaskStatus(TaskStatusBody.model_validate_json(body).status)
    except ValueError:
        return None
