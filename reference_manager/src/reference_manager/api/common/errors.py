"""What goes wrong, as the protocol says it: ``{"message": …, "code": …}`` and a status."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from reference_manager.domain.machine import IllegalTransitionError
from reference_manager.domain.rules import PreviousStageNotCompletedError
from reference_manager.engine.errors import EngineError, NotFoundError, OvertakenError
from reference_manager.store.pool import PoolExhaustedError

log = structlog.stdlib.get_logger(__name__)

RETRY_AFTER = {"Retry-After": "1"}
HTTP_CODES = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "BODY_TOO_LARGE", 415: "UNSUPPORTED_MEDIA_TYPE"}


def problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal."""
    return Response(to_json({"message": message, "code": code}), status, headers, "application/json")


def error_response(error: Exception) -> Response:  # noqa: PLR0911 - a table of errors, not a decision
    """The refusal that this error means; what is unexpected is logged, since only the log says more than the answer."""
    match error:
        case NotFoundError():
            return problem(404, error.code, str(error))
        case OvertakenError():
            return problem(409, error.code, str(error))
        case EngineError():
            return problem(400, error.code, str(error))
        case IllegalTransitionError():
            return problem(400, f"ILLEGAL_{error.machine.upper()}_STATUS_TRANSITION", str(error))
        case PreviousStageNotCompletedError():
            return problem(400, "ILLEGAL_STAGE_STATUS_TRANSITION", str(error))
        case RequestValidationError():
            return problem(400, "VALIDATION_ERROR", validation_message(error.errors()[0]))
        case HTTPException():
            code = HTTP_CODES.get(error.status_code, "VALIDATION_ERROR")
            return problem(error.status_code, code, error.detail, dict(error.headers or {}))
        case (
            PoolExhaustedError()
            | asyncpg.LockNotAvailableError()
            | asyncpg.DeadlockDetectedError()
            | asyncpg.CannotConnectNowError()
            | asyncpg.TooManyConnectionsError()
        ):
            log.warning("the database is busy", error=str(error))
            return problem(503, "DATABASE_RELATED_ERROR", "The database is busy. Try again shortly.", RETRY_AFTER)
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | asyncpg.InternalClientError() | OSError():
            log.error("the database failed", exc_info=error)
            return problem(500, "DATABASE_RELATED_ERROR", "The database failed. The manager's log says why.")
        case _:
            log.error("a request failed", exc_info=error)
            return problem(500, "UNKNOWN_ERROR", "Something unexpected happened. The manager's log says what.")


def validation_message(mistake: Mapping[str, Any]) -> str:
    """Where a mistake is and what it is, such as ``body.name: String should have at least 2 characters``."""
    if mistake["type"] == "json_invalid":
        return f"body: not JSON, {mistake['ctx']['error']}"
    place = ".".join(str(part) for part in mistake["loc"])
    return f"{place}: {mistake['msg'].removeprefix('Value error, ')}"


def register_error_handlers(app: FastAPI) -> None:
    """Let every error of the app be answered in the protocol's shape."""

    async def handle(_request: Request, error: Exception) -> Response:
        return error_response(error)

    known = (
        EngineError,
        IllegalTransitionError,
        PreviousStageNotCompletedError,
        RequestValidationError,
        HTTPException,
        PoolExhaustedError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # what the driver makes of a server that hangs up at the wrong moment
        OSError,
        Exception,
    )
    for kind in known:
        app.add_exception_handler(kind, handle)
