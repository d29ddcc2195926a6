"""Answers as the original manager (0.2.1) gives them, for a fake manager that supports only part A of the protocol."""

from typing import Any, Final, cast

from jobnik_sdk.testing.fake.state import RefusedRequestError

_NEWER: Final = {"createdAt", "updatedAt", "endedAt", "error"}
"""Fields that the original does not have. Without leases the only error is that a task was not reported in time."""
_TIMES: Final = {"startTime", "endTime"}
"""Left out if they are not set."""
_STAGE_TIMES: Final = {"creationTime", "updateTime"} | _TIMES
"""Fields that the stages of the original do not have."""
_BARE_CODES: Final = ("JOB_NOT_FOUND", "STAGE_NOT_FOUND", "TASK_NOT_FOUND", "TASK_STATUS_UPDATE_FAILED")


def original_message(refusal: RefusedRequestError) -> str:
    """Return the message of a refusal: often only its code."""
    is_bare = refusal.code in _BARE_CODES or refusal.code.endswith("_FINITE_STATE")
    return refusal.code if is_bare else str(refusal)


def as_original(body: Any) -> Any:  # noqa: ANN401 any JSON
    """Return an entity, a summary or a list of entities without what the original does not have."""
    if isinstance(body, list):
        items = list[Any](body)  # pyright: ignore[reportUnknownArgumentType] - any JSON
        return [as_original(item) for item in items]
    if not isinstance(body, dict):
        return body
    fields = cast("dict[str, Any]", body)
    if "id" not in fields:
        return {name: value for name, value in fields.items() if name != "aborted"}
    unknown = _NEWER | {name for name in _TIMES if fields.get(name) is None}
    if "jobId" in fields:
        unknown |= _STAGE_TIMES
    inner = {"stages", "tasks", "summary"}
    return {
        name: as_original(value) if name in inner else value for name, value in fields.items() if name not in unknown
    }
