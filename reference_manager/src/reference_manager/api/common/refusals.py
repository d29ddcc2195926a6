"""Every refusal of the API by its code, for the OpenAPI document. What becomes which of them is in ``errors``."""

from typing import NamedTuple


class Refusal(NamedTuple):
    """One code at one status, with a message such as comes along."""

    status: int
    code: str
    message: str


VALIDATION_ERROR = Refusal(400, "VALIDATION_ERROR", "body.name: String should have at least 2 characters")
DATABASE_FAILED = Refusal(500, "DATABASE_RELATED_ERROR", "The database failed. The manager's log says why.")
UNKNOWN_ERROR = Refusal(500, "UNKNOWN_ERROR", "Something unexpected happened. The manager's log says what.")
DATABASE_BUSY = Refusal(503, "DATABASE_RELATED_ERROR", "The database is busy. Try again shortly.")
ANYWHERE = (VALIDATION_ERROR, DATABASE_FAILED, UNKNOWN_ERROR, DATABASE_BUSY)
"""What every route may answer."""

BODY_TOO_LARGE = Refusal(413, "BODY_TOO_LARGE", "The body must not be larger than 1048576 bytes")
UNSUPPORTED_MEDIA_TYPE = Refusal(
    415, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON in UTF-8, with the header Content-Type: application/json"
)
OF_BODIES = (BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE)
"""What every route that takes a body may answer."""

JOB_NOT_FOUND = Refusal(404, "JOB_NOT_FOUND", "There is no such job")
JOB_NOT_IN_FINITE_STATE = Refusal(
    400, "JOB_NOT_IN_FINITE_STATE", "The job is PENDING: abort it first, or wait until it has ended"
)
JOB_IN_FINITE_STATE = Refusal(400, "JOB_IN_FINITE_STATE", "The job is COMPLETED: nothing can be added any more")
ILLEGAL_JOB_STATUS_TRANSITION = Refusal(
    400, "ILLEGAL_JOB_STATUS_TRANSITION", "Illegal status transition from COMPLETED to ABORTED"
)

STAGE_NOT_FOUND = Refusal(404, "STAGE_NOT_FOUND", "There is no such stage")
STAGE_IN_FINITE_STATE = Refusal(400, "STAGE_IN_FINITE_STATE", "The stage is COMPLETED: nothing can be added any more")
ILLEGAL_STAGE_STATUS_TRANSITION = Refusal(400, "ILLEGAL_STAGE_STATUS_TRANSITION", "Previous stage is not COMPLETED")

TASK_NOT_FOUND = Refusal(404, "TASK_NOT_FOUND", "There is no such task")
NO_TASK_WAITS = Refusal(404, "TASK_NOT_FOUND", "No task of this type is waiting")
ILLEGAL_TASK_STATUS_TRANSITION = Refusal(
    400, "ILLEGAL_TASK_STATUS_TRANSITION", "Illegal status transition from PENDING to COMPLETED"
)
TASK_STATUS_UPDATE_FAILED = Refusal(
    409, "TASK_STATUS_UPDATE_FAILED", "Somebody else changed the task at the same moment"
)

WORKER_NOT_FOUND = Refusal(404, "WORKER_NOT_FOUND", "There is no such worker")
