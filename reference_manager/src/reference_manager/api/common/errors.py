"""Error responses: every error as a status, a code and a message, and the handlers that send them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reference_manager.access.errors import (
    AccessError,
    ForbiddenError,
    TokenNameTakenError,
    TokenNotFoundError,
    UnauthenticatedError,
)
from reference_manager.domain.rules import PreviousStageNotCompletedError
from reference_manager.domain.state_machine import IllegalTransitionError
from reference_manager.domain.states import JobStatus, StageStatus, TaskStatus
from reference_manager.engine.errors import (
    ConcurrentChangeError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
    EngineError,
    InFiniteStateError,
    KeyReusedError,
    NotFiniteError,
    NotFoundError,
    NoWaitingTaskError,
)

log = structlog.stdlib.get_logger(__name__)

RETRY_AFTER = {"Retry-After": "1"}
"""Seconds."""
_HTTP_CODES = {
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    503: "MANAGER_BUSY",
}


class ErrorResponse(NamedTuple):
    """An HTTP status, an error code of the protocol, and a message for people."""

    status: int
    code: str
    message: str


DATABASE_FAILED = ErrorResponse(500, "DATABASE_RELATED_ERROR", "The database failed. See the manager's log.")
UNKNOWN_ERROR = ErrorResponse(500, "UNKNOWN_ERROR", "An unexpected error occurred. See the manager's log.")
DATABASE_BUSY = ErrorResponse(503, "DATABASE_RELATED_ERROR", "The database is busy. Try again shortly.")
DATABASE_UNAVAILABLE = ErrorResponse(
    503, "DATABASE_RELATED_ERROR", "The database is unavailable. Try again shortly; the manager's log has the reason."
)
MANAGER_BUSY = ErrorResponse(
    503, "MANAGER_BUSY", "The manager has too many connections or large requests. Try again shortly."
)
UNSUPPORTED_MEDIA_TYPE = ErrorResponse(
    415, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON in UTF-8, with the header Content-Type: application/json"
)
METHOD_NOT_ALLOWED = ErrorResponse(405, "METHOD_NOT_ALLOWED", "Method Not Allowed")
LEASE_LOST = ErrorResponse(409, "LEASE_LOST", "The worker does not hold this lease: nothing was changed")
"""Sent as the result of one report, without its status."""
UNDECIDED = ErrorResponse(
    503, "UNDECIDED", "Another session has locked the job, or the database failed: send the report again"
)
"""Sent as the result of one report, without its status, if others in the same request are decided."""


CHALLENGE = 'Bearer realm="jobnik"'
"""The header ``WWW-Authenticate``, to which RFC 6750 adds what is wrong."""


def stalled(tasks: Sequence[str]) -> ErrorResponse:
    """The error of a manager whose background tasks make no progress."""
    message = f"No progress for a long time: {', '.join(tasks)}. Restart the manager."
    return ErrorResponse(503, "BACKGROUND_TASK_STALLED", message)


def body_too_large(limit: int) -> ErrorResponse:
    """The error of a body that is larger than this many bytes."""
    return ErrorResponse(413, "BODY_TOO_LARGE", f"The body must not be larger than {limit} bytes")


def head_too_large(limit: int) -> ErrorResponse:
    """The error of a request whose line and headers are larger than this many bytes."""
    message = f"The request line and the headers must not be larger than {limit} bytes"
    return ErrorResponse(431, "HEAD_TOO_LARGE", message)


def describe_error(error: Exception) -> ErrorResponse:  # noqa: C901, PLR0911, PLR0912 - a table of errors, not a decision
    """Return the response to an error."""
    match error:
        case NotFoundError():
            return ErrorResponse(404, error.code, str(error))
        case ConcurrentChangeError():
            return ErrorResponse(409, error.code, str(error))
        case KeyReusedError():
            return ErrorResponse(422, error.code, str(error))
        case EngineError():
            return ErrorResponse(400, error.code, str(error))
        case UnauthenticatedError():
            return _unauthenticated(error)
        case ForbiddenError():
            return ErrorResponse(403, "FORBIDDEN", str(error))
        case TokenNotFoundError():
            return ErrorResponse(404, "TOKEN_NOT_FOUND", str(error))
        case TokenNameTakenError():
            return ErrorResponse(409, "TOKEN_NAME_TAKEN", str(error))
        case IllegalTransitionError():
            return ErrorResponse(400, f"ILLEGAL_{error.machine.upper()}_STATUS_TRANSITION", str(error))
        case PreviousStageNotCompletedError():
            return ErrorResponse(400, "ILLEGAL_STAGE_STATUS_TRANSITION", str(error))
        case RequestValidationError():
            return ErrorResponse(400, "VALIDATION_ERROR", validation_message(error.errors()[0]))
        case HTTPException():
            code = _HTTP_CODES.get(error.status_code, "VALIDATION_ERROR")
            return ErrorResponse(error.status_code, code, error.detail)
        case DatabaseBusyError():
            return DATABASE_BUSY
        case DatabaseUnavailableError():
            return DATABASE_UNAVAILABLE
        case DatabaseError():
            return DATABASE_FAILED
        case _:
            return UNKNOWN_ERROR


def _unauthenticated(error: UnauthenticatedError) -> ErrorResponse:
    match error.error:
        case None:
            return ErrorResponse(401, "TOKEN_REQUIRED", str(error))
        case "invalid_request":
            return ErrorResponse(400, "VALIDATION_ERROR", str(error))
        case _:
            return ErrorResponse(401, "TOKEN_INVALID", str(error))


# What the OpenAPI document shows. The messages are examples: some of them name the status of an entity or a limit.
ON_EVERY_ROUTE = (
    ErrorResponse(400, "VALIDATION_ERROR", "body.name: String should have at least 2 characters"),
    DATABASE_FAILED,
    UNKNOWN_ERROR,
    DATABASE_BUSY,
    DATABASE_UNAVAILABLE,
    MANAGER_BUSY,
)
WITH_A_BODY = (body_too_large(1024 * 1024), UNSUPPORTED_MEDIA_TYPE)
"""The additional errors of a route that takes a body."""

JOB_NOT_FOUND = describe_error(NotFoundError("job"))
JOB_NOT_IN_FINITE_STATE = describe_error(NotFiniteError(JobStatus.PENDING))
JOB_IN_FINITE_STATE = describe_error(InFiniteStateError("job", JobStatus.COMPLETED))
ILLEGAL_JOB_STATUS_TRANSITION = describe_error(IllegalTransitionError("job", JobStatus.COMPLETED, JobStatus.ABORTED))
STAGE_NOT_FOUND = describe_error(NotFoundError("stage"))
STAGE_IN_FINITE_STATE = describe_error(InFiniteStateError("stage", StageStatus.COMPLETED))
ILLEGAL_STAGE_STATUS_TRANSITION = describe_error(PreviousStageNotCompletedError())
TASK_NOT_FOUND = describe_error(NotFoundError("task"))
NO_WAITING_TASK = describe_error(NoWaitingTaskError())
ILLEGAL_TASK_STATUS_TRANSITION = describe_error(
    IllegalTransitionError("task", TaskStatus.PENDING, TaskStatus.COMPLETED)
)
TASK_STATUS_UPDATE_FAILED = describe_error(ConcurrentChangeError())
IDEMPOTENCY_KEY_REUSED = describe_error(KeyReusedError())
WORKER_NOT_FOUND = describe_error(NotFoundError("worker"))
TOKEN_NOT_FOUND = describe_error(TokenNotFoundError())
TOKEN_NAME_TAKEN = describe_error(TokenNameTakenError("thumbnail-worker"))
WITH_A_TOKEN = (
    describe_error(UnauthenticatedError("This request needs a token", None)),
    describe_error(UnauthenticatedError("The token has expired", "invalid_token")),
    describe_error(ForbiddenError("The token needs the scope producer or admin; it has viewer", ("producer",))),
)
"""The additional errors of a route that needs a token."""


def problem(error: ErrorResponse, headers: Mapping[str, str] | None = None) -> Response:
    """Build the HTTP response of an error."""
    body = to_json({"message": error.message, "code": error.code})
    return Response(body, error.status, headers, "application/json")


def error_response(error: Exception, describe: Callable[[Exception], ErrorResponse] = describe_error) -> Response:
    """Build the HTTP response to an exception. Log it if the response does not say what went wrong."""
    described = describe(error)
    log_error(error, described)
    if described in {DATABASE_BUSY, DATABASE_UNAVAILABLE}:
        return problem(described, RETRY_AFTER)
    return problem(described, _headers(error))


def _headers(error: Exception) -> Mapping[str, str] | None:
    match error:
        case HTTPException():
            return error.headers
        case UnauthenticatedError():
            details = f', error="{error.error}", error_description="{error}"' if error.error else ""
            return {"WWW-Authenticate": CHALLENGE + details}
        case ForbiddenError():
            scope = f', scope="{" ".join(error.scopes)}"' if error.scopes else ""
            return {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope"{scope}'}
        case _:
            return None


def log_error(error: Exception, described: ErrorResponse) -> None:
    """Log an error whose description does not say what went wrong."""
    if described is DATABASE_BUSY:
        log.warning("database busy", error=str(error))
    elif described is DATABASE_UNAVAILABLE:
        log.warning("database unavailable", error=str(error))
    elif described is DATABASE_FAILED:
        log.error("database failed", exc_info=error)
    elif described is UNKNOWN_ERROR:
        log.error("request failed", exc_info=error)


def validation_message(invalid: Mapping[str, Any]) -> str:
    """Describe where a value is invalid and why, such as ``body.name: String should have at least 2 characters``."""
    if invalid["type"] == "json_invalid":
        return f"body: not JSON, {invalid['ctx']['error']}"
    # The error names the query parameter, even if only one of its values is invalid.
    parts = invalid["loc"][:2] if invalid["loc"][:1] == ("query",) else invalid["loc"]
    path = ".".join(str(part) for part in parts)
    return f"{path}: {invalid['msg'].removeprefix('Value error, ')}"


def register_error_handlers(app: FastAPI, describe: Callable[[Exception], ErrorResponse]) -> None:
    """Answer every error of the app in the format of the protocol, with the messages of ``describe``."""

    async def handle(_request: Request, error: Exception) -> Response:
        return error_response(error, describe)

    handled = (
        AccessError,
        EngineError,
        IllegalTransitionError,
        PreviousStageNotCompletedError,
        RequestValidationError,
        HTTPException,
        DatabaseError,
        Exception,
    )
    for kind in handled:
        app.add_exception_handler(kind, handle)
