"""All exceptions that the SDK raises, and those that a handler raises to control its task.

JobnikError
├── ConfigurationError             a name, an address or an option is invalid
│   └── SettingsError              an environment variable is missing or invalid
├── InvalidPayloadError            data, metadata or a result does not fit its model; nothing was sent
├── UnreadableTaskError            the data of a claimed task does not fit its model
├── UnsupportedError               the manager lacks a feature of part B; nothing was sent
├── StreamError                    a stream of tasks stopped before its end
├── JobFailedError                 the job that `wait_for_job` waited for is FAILED
├── JobAbortedError                the job that `wait_for_job` waited for is ABORTED
├── WaitTimeoutError               the job did not end within the timeout
├── UnreachableError               the manager did not respond
│   └── LostAnswerError            the request was sent, so it may have been carried out
└── AnswerError                    the manager responded with an error
    ├── UnexpectedAnswerError      the response does not follow Jobnik's protocol
    ├── ManagerFailureError        the manager failed (5xx)
    ├── InvalidRequestError        the request is invalid (VALIDATION_ERROR)
    ├── PayloadTooLargeError       the request exceeds the manager's size limit (413)
    ├── AccessError                the manager refused the token
    │   ├── UnauthorizedError      there is no token, or it is unknown, revoked or expired (401)
    │   └── ForbiddenError         the token lacks a scope, or is limited to other stage types or jobs (403)
    ├── NotFoundError
    │   ├── JobNotFoundError
    │   ├── StageNotFoundError
    │   └── TaskNotFoundError
    ├── IdempotencyKeyReusedError  another request used the idempotency key
    ├── JobFinishedError           a finished job accepts no stages
    ├── JobNotFinishedError        only a finished job can be deleted
    ├── StageFinishedError         a finished stage accepts no tasks
    ├── StageStartedError          an older manager: a stage in progress accepts no tasks
    └── IllegalTransitionError     the status of the entity does not allow the change
        └── StatusConflictError    another client changed the task at the same time

A handler raises the first three to decide how its attempt ends, and sees the fourth when it is cancelled:

Exception
├── RetryLater                     the attempt failed; the next one starts after a delay
├── DoNotRetry                     the task failed permanently
└── Snooze                         the task is postponed; the attempt does not count
BaseException
└── Cancelled                      the attempt was cancelled; `except Exception` does not catch it
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from jobnik_sdk.model.arguments import check_duration
from jobnik_sdk.model.entities import ClaimedTask, Job, Task
from jobnik_sdk.model.exceptions import ConfigurationError, InvalidPayloadError, JobnikError

__all__ = [
    "AccessError",
    "AnswerError",
    "Cancelled",
    "ConfigurationError",
    "DoNotRetry",
    "ForbiddenError",
    "IdempotencyKeyReusedError",
    "IllegalTransitionError",
    "InvalidPayloadError",
    "InvalidRequestError",
    "JobAbortedError",
    "JobFailedError",
    "JobFinishedError",
    "JobNotFinishedError",
    "JobNotFoundError",
    "JobnikError",
    "LostAnswerError",
    "ManagerFailureError",
    "NotFoundError",
    "PayloadTooLargeError",
    "RetryLater",
    "SettingsError",
    "Snooze",
    "StageFinishedError",
    "StageNotFoundError",
    "StageStartedError",
    "StatusConflictError",
    "StreamError",
    "TaskNotFoundError",
    "UnauthorizedError",
    "UnexpectedAnswerError",
    "UnreachableError",
    "UnreadableTaskError",
    "UnsupportedError",
    "WaitTimeoutError",
]


class SettingsError(ConfigurationError):
    """Environment variables are missing or invalid. The message names each of them on its own line."""


class UnreadableTaskError(JobnikError):
    """The data or metadata of a claimed task does not fit its model.

    Report the task as failed, and align the models of the producer and the worker.

    Attributes:
        field: The path of the invalid field, such as `data.size`.
        reason: What is wrong with it.
        task: The claimed task, with plain JSON.
    """

    def __init__(self, field: str, reason: str, task: ClaimedTask[Any, Any]) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.task = task


class UnsupportedError(JobnikError):
    """The manager lacks a feature of part B of the protocol. Nothing was sent.

    Update the manager, or follow the advice in the message.

    Attributes:
        feature: The name of the missing feature, such as `retry-policy`.
    """

    def __init__(self, feature: str, advice: str) -> None:
        super().__init__(f"This manager lacks the feature {feature!r}: update the manager, or {advice}.")
        self.feature = feature


class StreamError(JobnikError):
    """A stream of tasks stopped before its end; `__cause__` is the reason.

    Positions in the stream count from 0. A task is `refused`, `uncertain` or unsent, or it was created. Correct the
    cause, and stream the tasks that are missing.

    Attributes:
        created: The number of tasks that were created.
        refused: Ranges of positions that were sent, but not created.
        uncertain: Ranges of positions that may or may not exist, because the response was lost or the manager failed.
            The tasks of a range were created either all or not at all.
        unsent: The first position that was not sent; no later one was sent either.
    """

    def __init__(
        self, reason: object, *, created: int, refused: Sequence[range], uncertain: Sequence[range], unsent: int
    ) -> None:
        counts = [f"{created} tasks created"]
        if refused:
            counts.append(f"{sum(map(len, refused))} refused")
        if uncertain:
            counts.append(f"{sum(map(len, uncertain))} unknown")
        super().__init__(f"{', '.join(counts)}; nothing was sent from position {unsent} onwards: {reason}")
        self.created = created
        self.refused = tuple(refused)
        self.uncertain = tuple(uncertain)
        self.unsent = unsent


class JobFailedError(JobnikError):
    """The job has FAILED.

    Attributes:
        job: The job, as last read.
        task: The first of its tasks that failed, with plain JSON; its `error` is the reason, if the manager stores it.
            None if the task can no longer be read.
    """

    def __init__(self, job: Job[Any, Any], task: Task[Any, Any, Any] | None = None) -> None:
        detail = "" if task is None else f": task {task.id} failed"
        if task is not None and task.error is not None:
            detail += f" with {task.error.type}: {task.error.message}"
        super().__init__(f"The job {job.name!r} ({job.id}) has failed{detail or '.'}")
        self.job = job
        self.task = task


class JobAbortedError(JobnikError):
    """The job was ABORTED.

    Attributes:
        job: The job, as last read.
    """

    def __init__(self, job: Job[Any, Any]) -> None:
        super().__init__(f"The job {job.name!r} ({job.id}) was aborted.")
        self.job = job


class WaitTimeoutError(JobnikError, TimeoutError):
    """The job did not end within the timeout: wait again, or abort it.

    The message names the first stage that is not completed, with its status and the counts of its tasks.
    """


class UnreachableError(JobnikError):
    """The manager did not respond. Check its address and that it is running, then try again."""


class LostAnswerError(UnreachableError):
    """The request was sent, but no response arrived. Check whether it was carried out before you send it again.

    A manager with the feature `idempotency-keys` carries out a repeated creation only once. The SDK then raises this
    error only after it has repeated the request without success.
    """


class AnswerError(JobnikError):
    """The manager responded with an error.

    Attributes:
        status: The HTTP status.
        code: The protocol's error code, such as `VALIDATION_ERROR`; `NO_CODE` if the response has none.
        retry_after: How long the manager asks clients to wait before they try again; 0 if it does not say.
    """

    def __init__(self, message: str, *, status: int, code: str, retry_after: timedelta = timedelta()) -> None:
        super().__init__(f"{message} [{status} {code}]")
        self.status = status
        self.code = code
        self.retry_after = retry_after


class UnexpectedAnswerError(AnswerError):
    """The response does not follow Jobnik's protocol. Check that a Jobnik manager runs at the address."""


class ManagerFailureError(AnswerError):
    """The manager failed (5xx). Try again later, or read the manager's log."""


class InvalidRequestError(AnswerError):
    """The request is invalid. The message names the field to correct."""


class PayloadTooLargeError(AnswerError):
    """The request exceeds the manager's size limit.

    Send fewer tasks at a time, or replace large data by a reference to it.
    """


class AccessError(AnswerError):
    """The manager refused the token of the request. Nothing was changed."""


class UnauthorizedError(AccessError):
    """The manager needs a token, and the request has none that is valid.

    Set JOBNIK_TOKEN or JOBNIK_TOKEN_FILE, or pass `token`. Its operator makes tokens: `jobnik-manager token create`.
    """


class ForbiddenError(AccessError):
    """The token does not permit the request: the message names the missing scope or the limit. Use another token."""


class NotFoundError(AnswerError):
    """The entity does not exist. Check its id, and whether it has been deleted."""


class JobNotFoundError(NotFoundError):
    """The job does not exist. Check its id, and whether it has been deleted."""


class StageNotFoundError(NotFoundError):
    """The stage does not exist. Check its id, and whether its job has been deleted."""


class TaskNotFoundError(NotFoundError):
    """The task does not exist. Check its id, and whether its job has been deleted."""


class IdempotencyKeyReusedError(AnswerError):
    """Another request used the idempotency key. Use a new key for each call that differs from earlier ones."""


class JobFinishedError(AnswerError):
    """The job is COMPLETED, FAILED or ABORTED, and accepts no stages. Create a new job for them."""


class JobNotFinishedError(AnswerError):
    """The job has not finished. Abort it, or wait until it ends, before you delete it."""


class StageFinishedError(AnswerError):
    """The stage is COMPLETED, FAILED or ABORTED, and accepts no tasks. Create a new stage for them."""


class StageStartedError(AnswerError):
    """This older manager accepts no tasks for a stage in progress. Create all tasks before the first is claimed."""


class IllegalTransitionError(AnswerError):
    """The current status of the entity does not allow the change. Read the entity to see its status."""


class StatusConflictError(IllegalTransitionError):
    """Another client changed the task at the same time. Read the task to see its status."""


class RetryLater(Exception):  # noqa: N818 named after its effect, which is how a `raise` statement reads
    """Raised by a handler to fail the current attempt; the next one starts after `delay`.

    >>> raise RetryLater(timedelta(minutes=5), "the archive is locked")

    Raised `from` another exception, it gives the attempt's error the type of that exception.

    Args:
        delay: 0 to 365 days. A shorter or longer delay is replaced by the nearest limit.
        message: The error message of the attempt. Default: the message of the exception that it is raised from.

    Raises:
        TypeError: `delay` is not a timedelta.
    """

    def __init__(self, delay: timedelta, message: str = "") -> None:
        check_duration("The delay of RetryLater", delay)
        super().__init__(message)
        self.delay = delay


class DoNotRetry(Exception):  # noqa: N818 named after its effect, which is how a `raise` statement reads
    """Raised by a handler to fail its task permanently, even if attempts are left.

    >>> raise DoNotRetry("the archive is not a ZIP file") from error

    Raised `from` another exception, it gives the attempt's error the type of that exception.

    Args:
        message: The error message of the attempt. Default: the message of the exception that it is raised from.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class Snooze(Exception):  # noqa: N818 named after its effect, which is how a `raise` statement reads
    """Raised by a handler to postpone its task by `delay`. The attempt does not count.

    Use it when something that the task needs is not ready yet.

    >>> raise Snooze(timedelta(minutes=1))

    Args:
        delay: 0 to 365 days. A shorter or longer delay is replaced by the nearest limit.

    Raises:
        TypeError: `delay` is not a timedelta.
    """

    def __init__(self, delay: timedelta) -> None:
        check_duration("The delay of Snooze", delay)
        super().__init__(f"not before {delay} from now")
        self.delay = delay


class Cancelled(BaseException):
    """Raised in a handler that is a plain function when its attempt is cancelled: clean up, and do not swallow it.

    A coroutine is cancelled with `asyncio.CancelledError` instead.

    Attributes:
        reason: Why the attempt was cancelled: "job aborted", "timeout", "lease lost" or "drain".
    """

    def __init__(self, reason: str = "cancelled") -> None:
        super().__init__(reason)
        self.reason = reason


_BY_CODE: dict[str, type[AnswerError]] = {
    "VALIDATION_ERROR": InvalidRequestError,
    "JOB_NOT_FOUND": JobNotFoundError,
    "STAGE_NOT_FOUND": StageNotFoundError,
    "TASK_NOT_FOUND": TaskNotFoundError,
    "IDEMPOTENCY_KEY_REUSED": IdempotencyKeyReusedError,
    "JOB_IN_FINITE_STATE": JobFinishedError,
    "JOB_NOT_IN_FINITE_STATE": JobNotFinishedError,
    "STAGE_IN_FINITE_STATE": StageFinishedError,
    "NOT_ALLOWED_TO_ADD_TASKS_TO_IN_PROGRESS_STAGE": StageStartedError,
    "ILLEGAL_JOB_STATUS_TRANSITION": IllegalTransitionError,
    "ILLEGAL_STAGE_STATUS_TRANSITION": IllegalTransitionError,
    "ILLEGAL_TASK_STATUS_TRANSITION": IllegalTransitionError,
    "TASK_STATUS_UPDATE_FAILED": StatusConflictError,
}
_BY_STATUS: dict[int, type[AnswerError]] = {401: UnauthorizedError, 403: ForbiddenError}
_TOO_LARGE = 413
_SERVER_ERRORS = 500


def answer_error(message: str, *, status: int, code: str | None, retry_after: timedelta) -> AnswerError:
    """Return the exception for an error response; `code` is None if the body does not follow the protocol."""
    kind: type[AnswerError]
    if status >= _SERVER_ERRORS:
        kind = ManagerFailureError
    elif status == _TOO_LARGE:
        kind = PayloadTooLargeError
    elif code is None:
        kind = UnexpectedAnswerError
    else:
        kind = _BY_STATUS.get(status) or _BY_CODE.get(code, AnswerError)
    return kind(message, status=status, code=code or "NO_CODE", retry_after=retry_after)
