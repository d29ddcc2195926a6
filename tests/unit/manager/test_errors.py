"""What an error becomes on the wire."""

import json

import asyncpg
import pytest
from reference_manager.api.common.errors import error_response
from reference_manager.domain.state_machine import IllegalTransitionError
from reference_manager.domain.states import StageStatus
from reference_manager.engine.errors import ConcurrentChangeError, DatabaseBusyError, DatabaseError
from reference_manager.store.errors import translated_errors


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (
            IllegalTransitionError("stage", StageStatus.CREATED, StageStatus.PENDING),
            400,
            "ILLEGAL_STAGE_STATUS_TRANSITION",
        ),
        (ConcurrentChangeError(), 409, "TASK_STATUS_UPDATE_FAILED"),
        (DatabaseError("gone"), 500, "DATABASE_RELATED_ERROR"),
        (ZeroDivisionError(), 500, "UNKNOWN_ERROR"),
    ],
)
def test_every_error_has_its_answer(error: Exception, status: int, code: str) -> None:
    """The status and the code are the protocol's, and what went wrong inside stays in the log."""
    response = error_response(error)
    assert (response.status_code, json.loads(bytes(response.body))["code"]) == (status, code)
    assert "gone" not in str(response.body)


def test_a_busy_database_asks_to_come_again() -> None:
    """A busy database is answered 503, with the time after which to try again."""
    response = error_response(DatabaseBusyError("all busy"))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert json.loads(bytes(response.body))["code"] == "DATABASE_RELATED_ERROR"


@pytest.mark.parametrize(
    ("error", "translated"),
    [
        (asyncpg.UndefinedTableError("gone"), DatabaseError),
        (asyncpg.InterfaceError("connection is closed"), DatabaseError),
        (asyncpg.InternalClientError("unexpected"), DatabaseError),
        (ConnectionRefusedError("refused"), DatabaseError),
        (asyncpg.LockNotAvailableError("locked"), DatabaseBusyError),
        (asyncpg.DeadlockDetectedError("deadlock"), DatabaseBusyError),
        (asyncpg.CannotConnectNowError("starting"), DatabaseBusyError),
        (asyncpg.TooManyConnectionsError("too many"), DatabaseBusyError),
        (ZeroDivisionError("not the database"), ZeroDivisionError),
        (DatabaseBusyError("all busy"), DatabaseBusyError),
    ],
)
def test_errors_of_the_driver_are_translated(error: Exception, translated: type[Exception]) -> None:
    """An error of the driver becomes the engine's, with its message and its cause; any other error stays as it is."""
    with pytest.raises(Exception, match=str(error)) as caught, translated_errors():
        raise error
    assert type(caught.value) is translated
    assert caught.value is error or caught.value.__cause__ is error
