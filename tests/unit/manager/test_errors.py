"""What an error becomes on the wire."""

import json

import asyncpg
import pytest
from reference_manager.api.common.errors import error_response
from reference_manager.domain.machine import IllegalTransitionError
from reference_manager.domain.states import StageStatus
from reference_manager.engine.errors import OvertakenError
from reference_manager.store.pool import PoolExhaustedError


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (
            IllegalTransitionError("stage", StageStatus.CREATED, StageStatus.PENDING),
            400,
            "ILLEGAL_STAGE_STATUS_TRANSITION",
        ),
        (OvertakenError(), 409, "TASK_STATUS_UPDATE_FAILED"),
        (asyncpg.UndefinedTableError("gone"), 500, "DATABASE_RELATED_ERROR"),
        (asyncpg.InterfaceError("connection is closed"), 500, "DATABASE_RELATED_ERROR"),
        (ConnectionRefusedError(), 500, "DATABASE_RELATED_ERROR"),
        (ZeroDivisionError(), 500, "UNKNOWN_ERROR"),
    ],
)
def test_every_error_has_its_answer(error: Exception, status: int, code: str) -> None:
    """The status and the code are the protocol's, and what went wrong inside stays in the log."""
    response = error_response(error)
    assert (response.status_code, json.loads(bytes(response.body))["code"]) == (status, code)
    assert "gone" not in str(response.body)


@pytest.mark.parametrize(
    "error",
    [
        PoolExhaustedError("all busy"),
        asyncpg.LockNotAvailableError("locked"),
        asyncpg.CannotConnectNowError("starting"),
    ],
)
def test_a_busy_database_asks_to_come_again(error: Exception) -> None:
    """What will pass is 503 and says when to try again."""
    response = error_response(error)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert json.loads(bytes(response.body))["code"] == "DATABASE_RELATED_ERROR"
