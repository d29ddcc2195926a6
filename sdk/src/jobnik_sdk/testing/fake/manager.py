"""A manager in memory, for tests."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Generic

from pydantic import JsonValue
from pydantic_core import to_json

from jobnik_sdk.execution.context import JobInfo, StageDataT, StageInfo, StageMetadataT
from jobnik_sdk.http.client import JobnikClient
from jobnik_sdk.model.arguments import MAX_DURATION, check_duration, check_flag, check_instance
from jobnik_sdk.model.definitions import (
    DataT,
    JobType,
    MetadataT,
    ResultT,
    StageType,
    TaskMetadataT,
    TaskT,
)
from jobnik_sdk.model.entities import Job, Task, job_model
from jobnik_sdk.observability import trace_context
from jobnik_sdk.testing.contexts import ClockedCancellation, MemoryAccess, RecordingContext
from jobnik_sdk.testing.fake import wire
from jobnik_sdk.testing.fake.dispatch import Dispatcher
from jobnik_sdk.testing.fake.state import State
from jobnik_sdk.testing.fake.transport import FakeTransport

ADDRESS: Final = "http://fake"
_LONGEST_ADVANCE: Final = 10 * MAX_DURATION
_TEST_WORKER: Final = "a test"


class RecordedTask(Task[TaskT, ResultT, TaskMetadataT], Generic[TaskT, ResultT, TaskMetadataT]):
    """A task as the manager stores it, with the latest checkpoint."""

    checkpoint: JsonValue = None


class FakeManager:
    """A manager in this process. It stores everything in memory, and answers as the reference manager does.

    >>> manager = FakeManager()
    >>> producer = Producer(manager.client())

    Clients, producers and workers in any thread and any event loop can share it. `advance` moves its clock ahead:
    leases expire, delayed tasks become due and waiting claims end, without a sleep in the test.

    Args:
        part_a_only: Serve only part A of the protocol: no leases, and nothing else that part B adds.
    """

    def __init__(self, *, part_a_only: bool = False) -> None:
        check_flag("part_a_only", part_a_only)
        self.transport = FakeTransport(State(), part_a_only=part_a_only)
        """The transport for your own client: `JobnikClient("http://fake", transport=manager.transport)`."""

    def client(self) -> JobnikClient:
        """Return a new client of this manager."""
        return JobnikClient(ADDRESS, transport=self.transport)

    @property
    def now(self) -> datetime:
        """The time of the manager's clock, in UTC."""
        with self.transport.locked() as state:
            return state.now

    @property
    def waiting_claims(self) -> int:
        """The number of claims that have found no task and are waiting for one."""
        return self.transport.waiting

    def advance(self, by: timedelta) -> None:
        """Move the manager's clock ahead, and apply everything that becomes due.

        Raises:
            TypeError: `by` is not a timedelta.
            ConfigurationError: it is negative, or longer than 10 years.
        """
        check_duration("by", by, timedelta(), _LONGEST_ADVANCE)
        self.transport.advance(by)

    def claim(
        self, stage_type: StageType[TaskT, Any, TaskMetadataT, StageDataT, StageMetadataT]
    ) -> tuple[TaskT, RecordingContext[TaskMetadataT, StageDataT, StageMetadataT]]:
        """Claim a task as a worker does, and return its data and a context to call a handler with.

        >>> task, context = manager.claim(pages)
        >>> await read_page(task, context)
        >>> manager.tasks(words)[0].data

        The manager then contains what the handler creates and the metadata that it changes. The attempt stays in
        progress, because no worker reports its outcome. `context.wait` works if a plain handler is called with
        `run_handler`, or by a test that is a plain function itself.

        Raises:
            LookupError: no task of this type can be claimed now.
        """
        check_instance("stage_type", stage_type, StageType)
        with self.transport.locked() as state:
            claimed = Dispatcher(state).claim(stage_type.name, 1, _TEST_WORKER, MAX_DURATION)
            if not claimed:
                raise LookupError(f"No task of a stage of type {stage_type.name!r} can be claimed now.")
            task, document = claimed[0], to_json(wire.task_json(claimed[0]))
        read, stage, job = _recorded(stage_type).model_validate_json(document), task.stage, task.stage.job
        stage_payloads = stage_type.data.model_validate(stage.data), stage_type.metadata.model_validate(stage.metadata)
        context = RecordingContext(
            job=JobInfo(job.id, job.name, job.priority, dict(job.data), dict(job.metadata)),
            stage=StageInfo(stage.id, stage.type, stage.order, *stage_payloads),
            task_id=task.id,
            attempt=task.failed + 1,
            max_attempts=task.max_attempts,
            metadata=read.metadata,
            traceparent=trace_context.child_of(task.trace.traceparent),
            timeout=task.timeout,
            checkpoint=read.checkpoint,
            access=MemoryAccess(self.client()),
            cancellation=ClockedCancellation(task.timeout),
        )
        return read.data, context

    def jobs(self, job_type: JobType[DataT, MetadataT]) -> Sequence[Job[DataT, MetadataT]]:
        """Return the jobs of a type, oldest first."""
        check_instance("job_type", job_type, JobType)
        model = job_model(job_type)
        with self.transport.locked() as state:
            found = [to_json(wire.job_json(job)) for job in state.jobs.values() if job.name == job_type.name]
        return [model.model_validate_json(job) for job in found]

    def tasks(
        self, stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any]
    ) -> Sequence[RecordedTask[TaskT, ResultT, TaskMetadataT]]:
        """Return the tasks of a stage type, oldest first."""
        check_instance("stage_type", stage_type, StageType)
        with self.transport.locked() as state:
            stages = state.stages_by_type.get(stage_type.name, ())
            found = sorted((task for stage in stages for task in stage.tasks), key=lambda task: task.number)
            documents = [to_json(wire.task_json(task)) for task in found]
        model = _recorded(stage_type)
        return [model.model_validate_json(document) for document in documents]


def _recorded(
    stage_type: StageType[TaskT, ResultT, TaskMetadataT, Any, Any],
) -> type[RecordedTask[TaskT, ResultT, TaskMetadataT]]:
    types = (stage_type.task, stage_type.result or type(None), stage_type.task_metadata)
    generic: Any = RecordedTask
    model: type[RecordedTask[TaskT, ResultT, TaskMetadataT]] = generic.__class_getitem__(types)
    return model
