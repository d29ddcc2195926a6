"""Request bodies for creating jobs, stages and tasks, and the features that the manager must have for them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic_core import to_json

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.model.arguments import check_choice, check_duration, check_instance, check_text, invalid_option
from jobnik_sdk.model.definitions import (
    EMPTY,
    AnyStageType,
    JobType,
    NewStage,
    NewTask,
    Priority,
    RetryPolicy,
    TaskDefaults,
)
from jobnik_sdk.model.payloads import encode_payload

TraceFields: TypeAlias = Mapping[str, str]
"""The fields that propagate a trace: `traceparent`, and `tracestate` if there is one."""


_MAX_KEY_LENGTH: Final = 200
_MIN_UNIQUE_FOR: Final = timedelta(milliseconds=1)


def json_object(fields: Mapping[str, bytes]) -> bytes:
    """Return the JSON object with these fields, whose values are JSON."""
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), document) for name, document in fields.items())


def json_array(documents: list[bytes]) -> bytes:
    """Return the JSON array of these JSON documents."""
    return b"[%b]" % b",".join(documents)


def job_fields(
    job_type: JobType[Any, Any], data: object, metadata: object, priority: Priority, trace: TraceFields
) -> dict[str, bytes]:
    """Return the fields of a job as JSON."""
    check_instance("job_type", job_type, JobType)
    check_choice("priority", priority, Priority)
    return {
        "name": to_json(job_type.name),
        "data": encode_payload(data, job_type.data, "data"),
        "userMetadata": encode_payload(metadata, job_type.metadata, "metadata"),
        "priority": to_json(Priority(priority).value),
        **{name: to_json(value) for name, value in trace.items()},
    }


def unique_fields(unique_key: str | None, unique_for: timedelta | None) -> dict[str, bytes]:
    """Return, as JSON, the fields that make a job unique; none without a key."""
    if unique_key is None:
        if unique_for is not None:
            raise InvalidPayloadError("unique_for", "requires a unique_key.")
        return {}
    check_text("unique_key", unique_key, 1, _MAX_KEY_LENGTH, invalid_option)
    if unique_for is None:
        return {"uniqueKey": to_json(unique_key)}
    check_duration("unique_for", unique_for, _MIN_UNIQUE_FOR, fault=invalid_option)
    return {"uniqueKey": to_json(unique_key), "uniqueFor": to_json(unique_for.total_seconds())}


class StageEncoder:
    """Encodes stages as JSON.

    Attributes:
        required_features: The features that the manager must have for the stages encoded so far.
    """

    def __init__(self, trace: TraceFields) -> None:
        self._trace = trace
        self.required_features: set[str] = set()

    def fields(self, stage: NewStage, path: str = "") -> dict[str, bytes]:
        """Return the fields of a stage as JSON. Paths in errors begin with `path`, such as `stages[2].`."""
        stage_type = stage.stage_type
        fields = {
            "type": to_json(stage_type.name),
            "data": encode_payload(stage.data, stage_type.data, f"{path}data"),
            "userMetadata": encode_payload(stage.metadata, stage_type.metadata, f"{path}metadata"),
            "startAsWaiting": to_json(stage.waiting),
            **{name: to_json(value) for name, value in self._trace.items()},
        }
        if stage.weight is not None:
            self.required_features.add("weighted-progress")
            fields["weight"] = to_json(stage.weight)
        if defaults := _task_defaults(stage):
            self.required_features.add("task-defaults")
            fields["taskDefaults"] = to_json(defaults)
        return fields

    def fields_and_tasks(self, stage: NewStage, path: str) -> tuple[dict[str, bytes], bytes]:
        """Return the fields of a stage as JSON, and the JSON array of its tasks."""
        check_instance(path.removesuffix("."), stage, NewStage)
        fields = self.fields(stage, path)
        encoder = TaskEncoder(stage.stage_type, self._trace, path)
        tasks = json_array([encoder.encode(index, task) for index, task in enumerate(stage.tasks)])
        self.required_features |= encoder.required_features
        return fields, tasks


class TaskEncoder:
    """Encodes tasks as JSON.

    Args:
        stage_type: The type of the stage that the tasks belong to.
        trace: The trace that the tasks belong to; if empty, they belong to the trace of the request.
        path: The beginning of paths in errors, such as `stages[2].`.

    Attributes:
        required_features: The features that the manager must have for the tasks encoded so far.
    """

    def __init__(self, stage_type: AnyStageType, trace: TraceFields, path: str = "") -> None:
        self._data = stage_type.task
        self._metadata = stage_type.task_metadata
        self._suffix = b",%b" % to_json(trace)[1:] if trace else b"}"
        self._path = path
        self._omitted_metadata: bytes | None = None
        self.required_features: set[str] = set()

    def encode(self, index: int, item: BaseModel | NewTask[Any, Any]) -> bytes:
        """Return the JSON of the task at this position, which is given as its data or as a `NewTask`."""
        task: NewTask[Any, Any] | None = item if isinstance(item, NewTask) else None
        try:
            data = encode_payload(item if task is None else task.data, self._data, "data")
            metadata = self._metadata_field(EMPTY if task is None else task.metadata)
        except InvalidPayloadError as error:
            raise InvalidPayloadError(f"{self._path}tasks[{index}].{error.field}", error.reason) from None
        options = b"" if task is None else self._option_fields(task)
        return b'{"data":%b%b%b%b' % (data, metadata, options, self._suffix)

    def _metadata_field(self, metadata: object) -> bytes:
        if metadata is not EMPTY:
            return b',"userMetadata":%b' % encode_payload(metadata, self._metadata, "metadata")
        if self._omitted_metadata is None:  # the same for all tasks that omit it
            document = encode_payload(metadata, self._metadata, "metadata")
            self._omitted_metadata = b"" if document == b"{}" else b',"userMetadata":%b' % document
        return self._omitted_metadata

    def _option_fields(self, task: NewTask[Any, Any]) -> bytes:
        fields = _attempt_options(task)
        if task.delay is not None:
            fields["delaySeconds"] = task.delay.total_seconds()
        if task.available_at is not None:
            fields["availableAt"] = task.available_at
        if fields.keys() - {"maxAttempts"}:
            self.required_features.add("retry-policy")
        return b",%b" % to_json(fields)[1:-1] if fields else b""


def _attempt_options(given: NewTask[Any, Any] | TaskDefaults | AnyStageType) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if given.max_attempts is not None:
        fields["maxAttempts"] = given.max_attempts
    if given.timeout is not None:
        fields["timeoutSeconds"] = given.timeout.total_seconds()
    if given.retry is not None:
        fields["retry"] = _retry_policy(given.retry)
    return fields


def _task_defaults(stage: NewStage) -> dict[str, Any]:
    """Return the options that a stage was given, and those of its type for the rest."""
    return _attempt_options(stage.stage_type) | _attempt_options(stage.task_defaults or TaskDefaults())


def _retry_policy(retry: RetryPolicy) -> dict[str, Any]:
    fields = {"strategy": retry.strategy, "delaySeconds": retry.delay.total_seconds(), "jitter": retry.jitter}
    if retry.strategy == "exponential":
        fields["factor"] = retry.factor
        if retry.max_delay is not None:
            fields["maxDelaySeconds"] = retry.max_delay.total_seconds()
    return fields
