"""The hot path: a claim of one task and a report of one task, served without the framework.

For these requests, the framework takes several times as long as the work itself. Only well-formed requests take the hot
path. Any other request goes to the framework's route of the same path, so that validation and its messages exist in one
place. The OpenAPI document describes those routes.
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
from reference_manager.engine.queues import TaskQueue, claimed_task, reported_task

STAGE_TYPE = TypeAdapter[str](StageTypeName)
ID = TypeAdapter[UUID](Id)
MAX_BODY_SIZE = 1024
"""Bytes. A report is much shorter."""


class Work(NamedTuple):
    """A request in progress."""

    future: asyncio.Future[Any]
    entity: Callable[[Any], str]
    """Returns the entity as JSON, given the future's result, or raises the error to answer with."""


class HotPath:
    """Starts claims and reports directly on the queue."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue

    @staticmethod
    def may_serve(method: bytes, path: bytes) -> bool:
        """Return whether a request may take the hot path, before its body has arrived."""
        return (method == b"PATCH" and path.endswith(b"/dequeue")) or (method == b"PUT" and path.endswith(b"/status"))

    def serve(self, method: bytes, path: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Work | None:
        """Start to serve a request. Return None if the framework must serve it."""
        match method, path.split(b"/"):
            case b"PATCH", [b"", b"v1", b"stages", raw_type, b"tasks", b"dequeue"]:
                stage_type = _stage_type(raw_type)
                return None if stage_type is None else Work(self._queue.claim(stage_type), claimed_task)
            case b"PUT", [b"", b"v1", b"tasks", raw_id, b"status"]:
                report = _task_report(raw_id, headers, body)
                if report is None:
                    return None
                task_id, outcome = report
                return Work(self._queue.settle_without_lease(task_id, outcome), partial(reported_task, outcome=outcome))
            case _:
                return None


def _stage_type(raw: bytes) -> str | None:
    """Decode a stage type from the path; None if it is invalid."""
    try:
        return STAGE_TYPE.validate_python(unquote_to_bytes(raw).decode())
    except ValueError:
        return None


def _task_report(raw_id: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[UUID, TaskStatus] | None:
    """Return the task's id and the reported status; None if the request is unusual or invalid."""
    if (b"content-type", b"application/json") not in headers:
        return None
    try:
        return ID.validate_python(raw_id.decode("ascii")), TaskStatus(TaskStatusBody.model_validate_json(body).status)
    except ValueError:
        return None
