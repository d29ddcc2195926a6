"""Everything that the SDK raises.

JobnikError
├── ConfigurationError             a name, an address or an option cannot work
│   └── SettingsError              an environment variable is missing or wrong
├── InvalidPayloadError            data, metadata or a result does not fit its model; nothing was sent
├── UnreadableTaskError            a claimed task's data does not fit its model
├── UnsupportedError               the manager lacks a feature of part B; nothing was sent
├── StreamError                    a stream of tasks ended in the middle
├── JobFailedError                 the job that was waited for has FAILED
├── JobAbortedError                the job that was waited for was ABORTED
├── WaitTimeoutError               the job that was waited for has not ended in time
├── UnreachableError               no answer came from the manager
│   └── LostAnswerError            the request was sent, so it may have been carried out
└── AnswerError                    the manager answered, but refused
    ├── UnexpectedAnswerError      the answer is not one of Jobnik's protocol
    ├── ManagerFailureError        the manager has a problem of its own (5xx)
    ├── InvalidRequestError        the manager found the request wrong (VALIDATION_ERROR)
    ├── PayloadTooLargeError       the body is over the manager's limit (413)
    ├── NotFoundError
    │   ├── JobNotFoundError
    │   ├── StageNotFoundError
    │   └── TaskNotFoundError
    ├── JobFinishedError           a finished job takes no stages
    ├── JobNotFinishedError        only a finished job can be deleted
    ├── StageFinishedError         a finished stage takes no tasks
    ├── StageStartedError          an older manager: a stage in progress takes no tasks
    └── IllegalTransitionError     the entity's status does not allow the move
        └── StatusConflictError    someone else changed the task at the same moment

What a handler raises to say how its attempt ends, and what it sees when it is cancelled:

Exception
├── RetryLater                     the attempt failed; the next one comes after a delay
├── DoNotRetry                     the task failed for good
└── Snooze                         not now: the task comes back later, and no attempt is burnt
BaseException
└── Cancelled                      the attempt is to end, and nothing should stop it by accident
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from jobnik_sdk.model.arguments import check_duration
from jobnik_sdk.model.entities import ClaimedTask, Job, Task
from jobnik_sdk.model.exceptions import ConfigurationError, InvalidPayloadError, JobnikError

__all__ = [
    "AnswerError",
    "Cancelled",
    "ConfigurationError",
    "DoNotRetry",
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
    "UnexpectedAnswerError",
    "UnreachableError",
    "UnreadableTaskError",
    "UnsupportedError",
    "WaitTimeoutError",
]


class SettingsError(ConfigurationError):
    """Environment variables are missing or wrong: correct them; the message names each on a line of its own."""


class UnreadableTaskError(JobnikError):
    """A claimed task does not fit its models at `field`: report `task` as failed and make both ends agree."""

    def __init__(self, field: str, reason: str, task: ClaimedTask[Any, Any]) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.task = task


class UnsupportedError(JobnikError):
    """The manager does not say that it has `feature`, and nothing was sent: do as the message says, or update it."""

    def __init__(self, feature: str, advice: str) -> None:
        super().__init__(f"This manager lacks the feature {feature!r}: update it, or {advice}.")
        self.feature = feature


class StreamError(JobnikError):
    """A stream of tasks ended in the middle, by `__cause__`: correct that, and go on with what is missing.

    `created` tasks exist for sure. Positions in the stream count from 0: those in `refused` were sent and not created,
    of those in `uncertain` nobody knows (the answer was lost, or was the manager's own failure: each range exists as a
    whole or not at all), and from `unsent` on none was sent. All others exist.
    """

    def __init__(
        self, reason: object, *, created: int, refused: Sequence[range], uncertain: Sequence[range], unsent: int
    ) -> None:
        became = [f"{created} created"]
        if refused:
            became.append(f"{sum(map(len, refused))} refused")
        if uncertain:
            became.append(f"of {sum(map(len, uncertain))} nobody knows")
        super().__init__(f"Tasks: {', '.join(became)}; from position {unsent} on nothing was sent: {reason}")
        self.created = created
        self.refused = tuple(refused)
        self.uncertain = tuple(uncertain)
        self.unsent = unsent


class JobFailedError(JobnikError):
    """The job has FAILED: `job` is what it became, `task` the first of its tasks that failed, whose `error` says why.

    What is in the task is plain JSON. It is None where nobody can tell any more, its `error` where the manager keeps
    none.
    """

    def __init__(self, job: Job[Any, Any], task: Task[Any, Any, Any] | None = None) -> None:
        why = "" if task is None else f" by task {task.id}"
        if task is not None and task.error is not None:
            why += f" with {task.error.type}: {task.error.message}"
        super().__init__(f"The job {job.name!r} ({job.id}) has failed{why or '.'}")
        self.job = job
        self.task = task


class JobAbortedError(JobnikError):
    """Somebody has ABORTED the job: `job` is what it became."""

    def __init__(self, job: Job[Any, Any]) -> None:
        super().__init__(f"The job {job.name!r} ({job.id}) was aborted.")
        self.job = job


class WaitTimeoutError(JobnikError, TimeoutError):
    """The job has not ended in time, and goes on: wait again, or abort it."""


class UnreachableError(JobnikError):
    """No answer came from the manager: check its address and that it runs, then try again."""


class LostAnswerError(UnreachableError):
    """The request was sent and no answer came: look whether it was carried out before you send it again."""


class AnswerError(JobnikError):
    """The manager refused: act upon `status`, the HTTP status, and `code`, the protocol's word for the reason."""

    def __init__(self, message: str, *, status: int, code: str, retry_after: timedelta = timedelta()) -> None:
        super().__init__(f"{message} [{status} {code}]")
        self.status = status
        self.code = code
        self.retry_after = retry_after


class UnexpectedAnswerError(AnswerError):
    """The answer is not one of Jobnik's protocol: check that the address is a Jobnik manager's."""


class ManagerFailureError(AnswerError):
    """The manager has a problem of its own: try again later, or read its log."""


class InvalidRequestError(AnswerError):
    """The manager found the request wrong: its message names the part to correct."""


class PayloadTooLargeError(AnswerError):
    """The body is over the manager's limit: send fewer tasks at a time, or a reference instead of the thing itself."""


class NotFoundError(AnswerError):
    """There is no such entity: check its id, and whether it has been deleted."""


class JobNotFoundError(NotFoundError):
    """There is no such job: check its id, and whether it has been deleted."""


class StageNotFoundError(NotFoundError):
    """There is no such stage: check its id, and whether its job has been deleted."""


class TaskNotFoundError(NotFoundError):
    """There is no such task: check its id, and whether its job has been deleted."""


class JobFinishedError(AnswerError):
    """The job is COMPLETED, FAILED or ABORTED: create a new job for further stages."""


class JobNotFinishedError(AnswerError):
    """The job is not finished: abort it, or wait for its end, before you delete it."""


class StageFinishedError(AnswerError):
    """The stage is COMPLETED, FAILED or ABORTED: create a new stage for further tasks."""


class StageStartedError(AnswerError):
    """This older manager takes no tasks for a stage in progress: create all tasks before the first is claimed."""


class IllegalTransitionError(AnswerError):
    """The present status does not allow the move: read the entity, and act upon what it has become."""


class StatusConflictError(IllegalTransitionError):
    """Someone else changed the task at the same moment: read it, and act upon what it has become."""


class RetryLater(Exception):  # noqa: N818 it says what shall happen, and reads so where it is raised
    """Raise it to fail an attempt that may succeed after `delay`; from another exception, it speaks for that one.

    A delay is a year at most; what is longer, or less than none, counts as the longest or as none.

    Raises:
        TypeError: `delay` is no timedelta.
    """

    def __init__(self, delay: timedelta, message: str = "") -> None:
        check_duration("The delay of RetryLater", delay)
        super().__init__(message)
        self.delay = delay


class DoNotRetry(Exception):  # noqa: N818 it says what shall happen, and reads so where it is raised
    """Raise it to fail a task that no further attempt can help; from another exception, it speaks for that one."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class Snooze(Exception):  # noqa: N818 it says what shall happen, and reads so where it is raised
    """Raise it to put a task off by `delay`, when what it needs is not there yet: this attempt does not count.

    The delay is bounded and checked as that of `RetryLater`.
    """

    def __init__(self, delay: timedelta) -> None:
        check_duration("The delay of Snooze", delay)
        super().__init__(f"not before {delay} from now")
        self.delay = delay


class Cancelled(BaseException):
    """The attempt is to end: clean up and let it pass; `context.cancellation.reason` says why.

    Plain functions see it; a coroutine is cancelled by `asyncio.CancelledError`.
    """

    def __init__(self, reason: str = "cancelled") -> None:
        super().__init__(reason)
        self.reason = reason


_BY_CODE: dict[str, type[AnswerError]] = {
    "VALIDATION_ERROR": InvalidRequestError,
    "JOB_NOT_FOUND": JobNotFoundError,
    "STAGE_NOT_FOUND": StageNotFoundError,
    "TASK_NOT_FOUND": TaskNotFoundError,
    "JOB_IN_FINITE_STATE": JobFinishedError,
    "JOB_NOT_IN_FINITE_STATE": JobNotFinishedError,
    "STAGE_IN_FINITE_STATE": StageFinishedError,
    "NOT_ALLOWED_TO_ADD_TASKS_TO_IN_PROGRESS_STAGE": StageStartedError,
    "ILLEGAL_JOB_STATUS_TRANSITION": IllegalTransitionError,
    "ILLEGAL_STAGE_STATUS_TRANSITION": IllegalTransitionError,
    "ILLEGAL_TASK_STATUS_TRANSITION": IllegalTransitionError,
    "TASK_STATUS_UPDATE_FAILED": StatusConflictError,
}
_TOO_LARGE = 413
_SERVER_FAULTS = 500


def answer_error(message: str, *, status: int, code: str | None, retry_after: timedelta) -> AnswerError:
    """Return the error for an answer; `code` is None where the body was not one of the protocol's."""
    kind: type[AnswerError]
    if status >= _SERVER_FAULTS:
        kind = ManagerFailureError
    elif status == _TOO_LARGE:
        kind = PayloadTooLargeError
    elif code is None:
        kind = UnexpectedAnswerError
    else:
        kind = _BY_CODE.get(code, AnswerError)
    return kind(message, status=status, code=code or "NO_CODE", retry_after=retry_after)
