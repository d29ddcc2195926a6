"""The requests of a producer that change something, with their metrics."""

import re
import secrets
import time
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from httpx2 import Response

from jobnik_sdk.errors import InvalidPayloadError, JobnikError, UnsupportedError
from jobnik_sdk.http.client import JobnikClient, read_one
from jobnik_sdk.model.arguments import shown
from jobnik_sdk.model.definitions import JobStatus, StageStatus
from jobnik_sdk.model.entities import CreatedJob, Stage
from jobnik_sdk.observability import metrics
from jobnik_sdk.producer.bodies import TraceFields, json_object
from jobnik_sdk.producer.created import read_created
from jobnik_sdk.producer.paths import job_path, stage_path

OK: Final = 200
"""The HTTP status if a unique job already exists; for a new job it is 201."""

NEW_JOB: Final = {"status": JobStatus.PENDING}
"""What is known about a new job before its response is read."""

_NO_TASKS: Final = b"[]"

_ADVICE: Final = {
    "retry-policy": "omit all options of tasks except max_attempts",
    "task-defaults": "omit task_defaults, and set the options on each task",
    "weighted-progress": "omit the weight of stages",
    "unique-jobs": "omit unique_key, and first check whether the job already exists",
    "attempts": "do not read attempts",
    "idempotency-keys": "omit idempotency_key or add_tasks, and first check what already exists",
    "job-tree": "omit idempotency_key, or create the stages later",
}

_KEYS: Final = "idempotency-keys"
_KEY: Final = re.compile("[!-~]([ -~]{0,253}[!-~])?")


_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger(__name__)

CreatedJobT = TypeVar("CreatedJobT", bound=CreatedJob[Any, Any])


def new_stage(job_id: UUID, order: int = 0) -> Mapping[str, object]:
    """Return what is known about a new stage before its response is read; the order 0 means that it is unknown."""
    return {"jobId": str(job_id), "status": StageStatus.CREATED, "order": order}


def check_features(required: Collection[str], features: Collection[str]) -> None:
    """Check that the manager has all required features.

    Raises:
        UnsupportedError: it lacks one.
    """
    for feature in required:
        if feature not in features:
            raise UnsupportedError(feature, _ADVICE[feature])


async def require(client: JobnikClient, required: Collection[str]) -> None:
    """Check that the manager has these features; see `check_features`."""
    if required:
        check_features(required, await client.capabilities())


def key_features(idempotency_key: str | None) -> set[str]:
    """Return the features that the manager must have for this idempotency key; none without a key.

    Raises:
        InvalidPayloadError: the key is invalid.
    """
    if idempotency_key is None:
        return set()
    if not isinstance(idempotency_key, str):  # pyright: ignore[reportUnnecessaryIsInstance] for callers without a type checker
        raise TypeError(f"idempotency_key must be text, not {shown(idempotency_key)}")
    if not _KEY.fullmatch(idempotency_key):
        reason = "must have 1 to 255 printable ASCII characters, with no space at either end"
        raise InvalidPayloadError("idempotency_key", f"{reason}, not {shown(idempotency_key)}.")
    return {_KEYS}


class Requests:
    """Sends the requests of a producer that change something, and counts them.

    If the manager has the feature `idempotency-keys`, each request that creates something has a key, with which it is
    repeated safely after a lost response.
    """

    def __init__(self, client: JobnikClient) -> None:
        self._client = client

    async def post_job(
        self, fields: dict[str, bytes], trace: TraceFields, idempotency_key: str | None = None
    ) -> Response:
        """Create a job. Without an `idempotency_key`, a new one is used."""
        key = idempotency_key or await self._new_key()
        with metrics.operation("create_job", metrics.JOB_CREATE_DURATION):
            response = await self._client.request(
                *("POST", "/v1/jobs"),
                json=json_object(fields),
                traceparent=trace["traceparent"],
                idempotency_key=key,
            )
        if response.status_code != OK or "uniqueKey" not in fields:
            metrics.GUIDE_JOBS_CREATED.inc()
        return response

    async def post_stage(
        self, job_path: str, fields: dict[str, bytes], trace: TraceFields, idempotency_key: str | None = None
    ) -> Response:
        """Create a stage. Without an `idempotency_key`, a new one is used."""
        key = idempotency_key or await self._new_key()
        with metrics.operation("create_stage", metrics.STAGE_CREATE_DURATION):
            return await self._client.request(
                *("POST", f"{job_path}/stage"),
                json=json_object(fields),
                traceparent=trace["traceparent"],
                idempotency_key=key,
            )

    async def post_tasks(
        self,
        stage_path: str,
        tasks: bytes,
        trace: TraceFields,
        prefer: str | None = None,
        idempotency_key: str | None = None,
    ) -> Response:
        """Create tasks, given as a JSON array. Without an `idempotency_key`, a new one is used."""
        key = idempotency_key or await self._new_key()
        with metrics.operation("create_tasks", metrics.TASK_CREATE_DURATION):
            return await self._client.request(
                *("POST", f"{stage_path}/tasks"),
                json=tasks,
                traceparent=trace["traceparent"],
                prefer=prefer,
                idempotency_key=key,
            )

    async def create_stages(
        self, job_id: UUID, trees: list[tuple[dict[str, bytes], bytes]], trace: TraceFields
    ) -> list[Stage[Any, Any, Any, Any, Any]]:
        """Create the stages of a new job and their tasks one by one, for managers without the feature `job-tree`.

        The stages are returned as they were before they had tasks. If one of them cannot be created, the job is
        aborted.
        """
        path = job_path(job_id)
        try:
            # The first stage waits, so that no stage can start, or end, before everything is created.
            (first, _), waiting = trees[0], {"startAsWaiting": b"true"}
            stages: list[Stage[Any, Any, Any, Any, Any]] = []
            for order, (fields, tasks) in enumerate(trees, start=1):
                body = fields if stages else fields | waiting
                response = await self.post_stage(path, body, trace)
                stages.append(read_created(Stage[Any, Any, Any, Any, Any], response, fields, new_stage(job_id, order)))
                if tasks != _NO_TASKS:
                    await self.post_tasks(stage_path(stages[-1]), tasks, trace)
            if first["startAsWaiting"] != waiting["startAsWaiting"]:
                start = f"{stage_path(stages[0])}/status"
                await self.command("start_stage", "PUT", start, {"status": StageStatus.PENDING})
        except BaseException as error:
            await self._abort_incomplete(path, error)
            raise
        return stages

    async def read_with_stages(
        self, model: type[CreatedJobT], job: CreatedJobT, stages: list[Stage[Any, Any, Any, Any, Any]]
    ) -> CreatedJobT:
        """Return a new job with its stages as they are now; if they cannot be read, as they were created."""
        try:
            return read_one(model, await self._client.request("GET", f"{job_path(job)}?should_return_stages=true"))
        except JobnikError as error:
            _log.warning("new job cannot be read", job_id=str(job.id), reason=str(error))
            return job.model_copy(update={"stages": tuple(stages)})

    async def command(self, name: str, method: str, path: str, body: dict[str, str] | None) -> None:
        """Send a command, such as `abort_job`."""
        with metrics.operation(name):
            await self._client.request(method, path, json=body)

    async def _new_key(self) -> str | None:
        """Return a new idempotency key, or None if the manager knows none. Keys grow, so that its index stays dense."""
        if _KEYS not in await self._client.capabilities():
            return None
        return f"{time.time_ns():016x}{secrets.token_hex(8)}"

    async def _abort_incomplete(self, job_path: str, cause: BaseException) -> None:
        try:
            await self.command("abort_job", "PUT", f"{job_path}/status", {"status": JobStatus.ABORTED})
            cause.add_note(f"The job at {job_path} was created, and has been aborted.")
        except JobnikError as error:
            cause.add_note(f"The job at {job_path} was created, but could not be aborted: {error}")
