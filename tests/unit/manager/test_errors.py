"""The conversion of errors to HTTP responses, and of driver errors to the engine's errors."""

import json
import socket

import asyncpg
import pytest
from reference_manager.api.common.errors import error_response
from reference_manager.domain.state_machine import IllegalTransitionError
from reference_manager.domain.states import StageStatus
from reference_manager.engine.errors import (
    ConcurrentChangeError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseUnavailableError,
)
from reference_manager.store.errors import LockTimeoutError, translated_errors


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
def test_an_error_becomes_a_response(error: Exception, status: int, code: str) -> None:
    """The response has the status and code of the protocol, and internal details stay in the log."""
    response = error_response(error)
    assert (response.status_code, json.loads(bytes(response.body))["code"]) == (status, code)
    assert "gone" not in str(response.body)


@pytest.mark.parametrize("error", [DatabaseBusyError("all busy"), DatabaseUnavailableError("the server is read-only")])
def test_temporary_errors_are_answered_with_retry_after(error: DatabaseError) -> None:
    """The response is a 503 with the time after which to try again."""
    response = error_response(error)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert json.loads(bytes(response.body))["code"] == "DATABASE_RELATED_ERROR"


@pytest.mark.parametrize(
    ("error", "translated"),
    [
        (asyncpg.UndefinedTableError("gone"), DatabaseError),
        (asyncpg.LockNotAvailableError("locked"), LockTimeoutError),
        (asyncpg.DeadlockDetectedError("deadlock"), DatabaseBusyError),
        (asyncpg.SerializationError("conflict"), DatabaseBusyError),
        (asyncpg.QueryCanceledError("statement timeout"), DatabaseBusyError),
        (asyncpg.TooManyConnectionsError("too many"), DatabaseBusyError),
        (asyncpg.InvalidCachedStatementError("changed"), DatabaseBusyError),
        (asyncpg.InterfaceError("connection is closed"), DatabaseUnavailableError),
        (asyncpg.InternalClientError("unexpected state"), DatabaseUnavailableError),
        (asyncpg.ConnectionDoesNotExistError("closed"), DatabaseUnavailableError),
        (asyncpg.CannotConnectNowError("starting"), DatabaseUnavailableError),
        (asyncpg.AdminShutdownError("shutdown"), DatabaseUnavailableError),
        (asyncpg.CrashShutdownError("crash"), DatabaseUnavailableError),
        (asyncpg.IdleSessionTimeoutError("idle"), DatabaseUnavailableError),
        (asyncpg.IdleInTransactionSessionTimeoutError("idle"), DatabaseUnavailableError),
        (asyncpg.DiskFullError("full"), DatabaseUnavailableError),
        (asyncpg.OutOfMemoryError("memory"), DatabaseUnavailableError),
        (asyncpg.PostgresIOError("input or output"), DatabaseUnavailableError),
        (asyncpg.ReadOnlySQLTransactionError("standby"), DatabaseUnavailableError),
        (ConnectionRefusedError("refused"), DatabaseUnavailableError),
        (socket.gaierror("unknown host"), DatabaseUnavailableError),
        (TimeoutError("silent"), DatabaseUnavailableError),
        (ZeroDivisionError("not the database"), ZeroDivisionError),
        (DatabaseBusyError("all busy"), DatabaseBusyError),
    ],
)
def test_driver_errors_are_translated(error: Exception, translated: type[Exception]) -> None:
    """A driver error becomes an engine error with its message and cause; other errors pass through."""
    with pytest.raises(Exception, match=str(error)) as caught, translated_errors():
        raise error
    assert type(caught.value) is translated
    assert caught.value is error or caught.value.__cause__ is error


def _lose_connection() -> None:
    with translated_errors():
        try:
            raise DatabaseUnavailableError("silent") from TimeoutError()
        finally:
            raise asyncpg.InterfaceError("connection is closed")


def test_the_error_that_ended_a_connection_counts() -> None:
    """The end of a transaction on a connection that was lost does not hide how it was lost."""
    with pytest.raises(DatabaseUnavailableError, match="silent") as caught:
        _lose_connection()
    assert type(caught.value.__cause__) is TimeoutError
