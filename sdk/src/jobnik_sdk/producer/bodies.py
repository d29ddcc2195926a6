"""The JSON of what is created, and the features that a manager must have for it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic_core import to_json

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.model.arguments import check_duration, check_kind
from jobnik_sdk.model.definitions import (
    EMPTY,
    MAX_DURATION,
    AnyStageType,
    JobType,
    NewStage,
    NewTask,
    Priority,
    RetryPolicy,
    StageOptions,
    TaskDefaults,
    TaskOptions,
)
from jobnik_sdk.model.payloads import to_document

Origin: TypeAlias = Mapping[str, str]
"""The fields that carry a trace on."""

_SHORTEST_TIMEOUT: Final = timedelta(seconds=0.1)
_LEAST_WEIGHT: Final = 0.001
_MOST_WEIGHT: Final = 1000
_LONGEST_KEY: Final = 200


def joined(parts: Mapping[str, bytes]) -> bytes:
    """Return the JSON object with these documents."""
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), document) for name, document in parts.items())


def job_parts(
    job_type: JobType[Any, Any], data: object, metadata: object, priority: Priority, origin: Origin
) -> dict[str, bytes]:
    """Return the parts of a job's JSON."""
    return {
        "name": to_json(job_type.name),
        "data": to_document(data, job_type.data, "data"),
        "userMetadata": to_document(metadata, job_type.metadata, "metadata"),
        "priority": to_json(Priority(priority).value),
        **{name: to_json(value) for name, value in origin.items()},
    }


def uniqueness(unique_key: str | None, unique_for: timedelta | None) -> dict[str, bytes]:
    """Return the parts of a job's JSON that make it the only one."""
    if unique_key is None:
        if unique_for is not None:
            raise InvalidPayloadError("unique_for", "says for how long a unique_key counts, and there is none.")
        return {}
    if not 1 <= len(unique_key) <= _LONGEST_KEY:
        raise InvalidPayloadError("unique_key", f"has 1 to {_LONGEST_KEY} characters, not {len(unique_key)}.")
    if unique_for is None:
        return {"uniqueKey": to_json(unique_key)}
    return {"uniqueKey": to_json(unique_key), "uniqueFor": to_json(_seconds("unique_for", unique_for))}


class StageWriter:
    """Writes the JSON of stages; `needed` are the features that a manager must have for those written so far."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self.needed: set[str] = set()

    def parts(
        self, stage_type: AnyStageType, data: object, metadata: object, options: StageOptions, where: str = ""
    ) -> dict[str, bytes]:
        """Return the parts of a stage's JSON; `where` begins the path in an error, such as `stages[2].`."""
        parts = {
            "type": to_json(stage_type.name),
            "data": to_document(data, stage_type.data, f"{where}data"),
            "userMetadata": to_document(metadata, stage_type.metadata, f"{where}metadata"),
            "startAsWaiting": to_json(options.get("waiting", False)),
            **{name: to_json(value) for name, value in self._origin.items()},
        }
        weight, defaults = options.get("weight"), options.get("task_defaults")
        if weight is not None:
            if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
                raise InvalidPayloadError(f"{where}weight", f"is {_LEAST_WEIGHT} to {_MOST_WEIGHT}, not {weight}.")
            self.needed.add("weighted-progress")
            parts["weight"] = to_json(weight)
        if defaults is not None:
            self.needed.add("task-defaults")
            parts["taskDefaults"] = to_json(_defaults_said(defaults, f"{where}task_defaults."))
        return parts

    def tree_parts(self, stage: NewStage, where: str) -> tuple[dict[str, bytes], bytes]:
        """Return the parts of a stage's JSON, and the list of its tasks."""
        check_kind(where.removesuffix("."), stage, NewStage)
        parts = self.parts(stage.stage_type, stage.data, stage.metadata, stage.options, where)
        writer = TaskWriter(stage.stage_type, self._origin, where)
        tasks = listed([writer.write(index, task) for index, task in enumerate(stage.tasks)])
        self.needed |= writer.needed
        return parts, tasks


class TaskWriter:
    """Writes the JSON of tasks; `needed` are the features that a manager must have for those written so far.

    With an empty `origin` they belong to the trace of the request. `where` begins the path in an error, such as
    `stages[2].`.
    """

    def __init__(self, stage_type: AnyStageType, origin: Origin, where: str = "") -> None:
        self._data = stage_type.task
        self._metadata = stage_type.task_metadata
        self._end = b",%b" % to_json(origin)[1:] if origin else b"}"
        self._where = where
        self._no_metadata: bytes | None = None
        self.needed: set[str] = set()

    def write(self, index: int, item: BaseModel | NewTask[Any, Any]) -> bytes:
        """Return the JSON of the task at this position, which is its data or a `NewTask`."""
        task: NewTask[Any, Any] = item if isinstance(item, NewTask) else NewTask(item)
        try:
            data = to_document(task.data, self._data, "data")
            metadata = self._noted(task.metadata)
            options = self._options(task.options) if task.options else b""
        except InvalidPayloadError as error:
            raise InvalidPayloadError(f"{self._where}tasks[{index}].{error.field}", error.reason) from None
        return b'{"data":%b%b%b%b' % (data, metadata, options, self._end)

    def _noted(self, metadata: object) -> bytes:
        if metadata is not EMPTY:
            return b',"userMetadata":%b' % to_document(metadata, self._metadata, "metadata")
        if self._no_metadata is None:  # whether its model allows that is the same for all tasks
            document = to_document(metadata, self._metadata, "metadata")
            self._no_metadata = b"" if document == b"{}" else b',"userMetadata":%b' % document
        return self._no_metadata

    def _options(self, options: TaskOptions) -> bytes:
        said = _trials_said(options.get("max_attempts"), options.get("timeout"), options.get("retry"))
        delay, available_at = options.get("delay"), options.get("available_at")
        if delay is not None:
            said["delaySeconds"] = _seconds("delay", delay)
        if available_at is not None:
            if delay is not None or available_at.tzinfo is None:
                raise InvalidPayloadError("available_at", "is a moment with a time zone, and not together with delay.")
            said["availableAt"] = available_at
        if said.keys() - {"maxAttempts"}:
            self.needed.add("retry-policy")
        return b",%b" % to_json(said)[1:-1] if said else b""


def listed(documents: list[bytes]) -> bytes:
    """Return the JSON list of these documents."""
    return b"[%b]" % b",".join(documents)


def _trials_said(max_attempts: int | None, timeout: timedelta | None, retry: RetryPolicy | None) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if max_attempts is not None:
        if max_attempts < 1:
            raise InvalidPayloadError("max_attempts", "a task has at least 1 attempt.")
        said["maxAttempts"] = max_attempts
    if timeout is not None:
        said["timeoutSeconds"] = _seconds("timeout", timeout, _SHORTEST_TIMEOUT)
    if retry is not None:
        check_kind("retry", retry, RetryPolicy)
        said["retry"] = _retry_said(retry)
    return said


def _defaults_said(defaults: TaskDefaults, where: str) -> dict[str, Any]:
    try:
        return _trials_said(defaults.max_attempts, defaults.timeout, defaults.retry)
    except InvalidPayloadError as error:
        raise InvalidPayloadError(f"{where}{error.field}", error.reason) from None


def _retry_said(retry: RetryPolicy) -> dict[str, Any]:
    said = {"strategy": retry.strategy, "delaySeconds": retry.delay.total_seconds(), "jitter": retry.jitter}
    if retry.strategy == "exponential":
        said["factor"] = retry.factor
        if retry.max_delay is not None:
            said["maxDelaySeconds"] = retry.max_delay.total_seconds()
    return said


def _seconds(field: str, duration: timedelta, shortest: timedelta = timedelta()) -> float:
    check_duration(field, duration)
    if not shortest <= duration <= MAX_DURATION:
        raise InvalidPayloadError(field, f"is {shortest.total_seconds():g} s to 365 days, not {duration}.")
    return duration.total_seconds()
