"""Request bodies for creating jobs, stages and tasks, and the features that the manager must have for them."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypedDict

from pydantic import BaseModel
from pydantic_core import to_json

from jobnik_sdk.errors import InvalidPayloadError
from jobnik_sdk.model.arguments import check_duration, check_instance
from jobnik_sdk.model.definitions import (
    EMPTY,
    MAX_DURATION,
    MIN_TIMEOUT,
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
from jobnik_sdk.model.payloads import encode_payload

TraceFields: TypeAlias = Mapping[str, str]
"""The fields that propagate a trace: `traceparent`, and `tracestate` if there is one."""


class JobOptions(TypedDict, total=False):
    """The options of a job; see `Producer.create_job`."""

    priority: Priority
    stages: Iterable[NewStage]
    unique_key: str | None
    unique_for: timedelta | None
    idempotency_key: str | None
    traceparent: str | None


_MIN_WEIGHT: Final = 0.001
_MAX_WEIGHT: Final = 1000
_MAX_KEY_LENGTH: Final = 200


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
    if not 1 <= len(unique_key) <= _MAX_KEY_LENGTH:
        raise InvalidPayloadError("unique_key", f"must have 1 to {_MAX_KEY_LENGTH} characters, not {len(unique_key)}.")
    if unique_for is None:
        return {"uniqueKey": to_json(unique_key)}
    return {"uniqueKey": to_json(unique_key), "uniqueFor": to_json(_seconds("unique_for", unique_for))}


class StageEncoder:
    """Encodes stages as JSON.

    Attributes:
        required_features: The features that the manager must have for the stages encoded so far.
    """

    def __init__(self, trace: TraceFields) -> None:
        self._trace = trace
        self.required_features: set[str] = set()

    def fields(
        self, stage_type: AnyStageType, data: object, metadata: object, options: StageOptions, path: str = ""
    ) -> dict[str, bytes]:
        """Return the fields of a stage as JSON. Paths in errors begin with `path`, such as `stages[2].`."""
        fields = {
            "type": to_json(stage_type.name),
            "data": encode_payload(data, stage_type.data, f"{path}data"),
            "userMetadata": encode_payload(metadata, stage_type.metadata, f"{path}metadata"),
            "startAsWaiting": to_json(options.get("waiting", False)),
            **{name: to_json(value) for name, value in self._trace.items()},
        }
        weight, defaults = options.get("weight"), _defaults_of(stage_type, options.get("task_defaults"))
        if weight is not None:
            if not _MIN_WEIGHT <= weight <= _MAX_WEIGHT:
                raise InvalidPayloadError(f"{path}weight", f"must be {_MIN_WEIGHT} to {_MAX_WEIGHT}, not {weight}.")
            self.required_features.add("weighted-progress")
            fields["weight"] = to_json(weight)
        if defaults != TaskDefaults():
            self.required_features.add("task-defaults")
            fields["taskDefaults"] = to_json(_task_defaults(defaults, f"{path}task_defaults."))
        return fields

    def fields_and_tasks(self, stage: NewStage, path: str) -> tuple[dict[str, bytes], bytes]:
        """Return the fields of a stage as JSON, and the JSON array of its tasks."""
        check_instance(path.removesuffix("."), stage, NewStage)
        fields = self.fields(stage.stage_type, stage.data, stage.metadata, stage.options, path)
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
        task: NewTask[Any, Any] = item if isinstance(item, NewTask) else NewTask(item)
        try:
            data = encode_payload(task.data, self._data, "data")
            metadata = self._metadata_field(task.metadata)
            options = self._option_fields(task.options) if task.options else b""
        except InvalidPayloadError as error:
            raise InvalidPayloadError(f"{self._path}tasks[{index}].{error.field}", error.reason) from None
        return b'{"data":%b%b%b%b' % (data, metadata, options, self._suffix)

    def _metadata_field(self, metadata: object) -> bytes:
        if metadata is not EMPTY:
            return b',"userMetadata":%b' % encode_payload(metadata, self._metadata, "metadata")
        if self._omitted_metadata is None:  # the same for all tasks that omit it
            document = encode_payload(metadata, self._metadata, "metadata")
            self._omitted_metadata = b"" if document == b"{}" else b',"userMetadata":%b' % document
        return self._omitted_metadata

    def _option_fields(self, options: TaskOptions) -> bytes:
        fields = _attempt_options(options.get("max_attempts"), options.get("timeout"), options.get("retry"))
        delay, available_at = options.get("delay"), options.get("available_at")
        if delay is not None:
            fields["delaySeconds"] = _seconds("delay", delay)
        if available_at is not None:
            if delay is not None:
                raise InvalidPayloadError("available_at", "cannot be combined with delay.")
            if available_at.tzinfo is None:
                raise InvalidPayloadError("available_at", f"must have a time zone, but {available_at} has none.")
            fields["availableAt"] = available_at
        if fields.keys() - {"maxAttempts"}:
            self.required_features.add("retry-policy")
        return b",%b" % to_json(fields)[1:-1] if fields else b""


def _attempt_options(max_attempts: int | None, timeout: timedelta | None, retry: RetryPolicy | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if max_attempts is not None:
        if max_attempts < 1:
            raise InvalidPayloadError("max_attempts", f"must be 1 or more, not {max_attempts}.")
        fields["maxAttempts"] = max_attempts
    if timeout is not None:
        fields["timeoutSeconds"] = _seconds("timeout", timeout, MIN_TIMEOUT)
    if retry is not None:
        check_instance("retry", retry, RetryPolicy)
        fields["retry"] = _retry_policy(retry)
    return fields


def _defaults_of(stage_type: AnyStageType, given: TaskDefaults | None) -> TaskDefaults:
    """Return the options that a stage was given, and those of its type for the rest."""
    given = given or TaskDefaults()
    return TaskDefaults(
        max_attempts=stage_type.max_attempts if given.max_attempts is None else given.max_attempts,
        timeout=stage_type.timeout if given.timeout is None else given.timeout,
        retry=stage_type.retry if given.retry is None else given.retry,
    )


def _task_defaults(defaults: TaskDefaults, path: str) -> dict[str, Any]:
    try:
        return _attempt_options(defaults.max_attempts, defaults.timeout, defaults.retry)
    except InvalidPayloadError as error:
        raise InvalidPayloadError(f"{path}{error.field}", error.reason) from None


def _retry_policy(retry: RetryPolicy) -> dict[str, Any]:
    fields = {"strategy": retry.strategy, "delaySeconds": retry.delay.total_seconds(), "jitter": retry.jitter}
    if retry.strategy == "exponential":
        fields["factor"] = retry.factor
        if retry.max_delay is not None:
            fields["maxDelaySeconds"] = retry.max_delay.total_seconds()
    return fields


def _seconds(field: str, duration: timedelta, shortest: timedelta = timedelta()) -> float:
    check_duration(field, duration)
    if not shortest <= duration <= MAX_DURATION:
        raise InvalidPayloadError(field, f"must be {shortest.total_seconds():g} s to 365 days, not {duration}.")
    return duration.total_seconds()
