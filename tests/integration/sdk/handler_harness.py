"""Runs the commands of `handler_functions` with a runner of one style."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from jobnik_sdk import Empty, Handler, HandlerStyle, JobInfo, JobnikClient, Outcome, Priority, StageInfo, TaskContext
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.execution.progress import AttemptState, Checkpoint, ProgressUpdate
from jobnik_sdk.execution.runner import CANCELLATION_TIMEOUT, Runner
from jobnik_sdk.execution.runners import runner_for
from typing_extensions import override

from tests.integration.sdk.handler_functions import Command, Owner, commands, run_command, run_command_async

_unreachable_client = JobnikClient("http://127.0.0.1:1")


class SignallingState(AttemptState):
    """The state of an attempt, with an event that is set when the handler records something."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.recorded = asyncio.Event()

    @override
    def record_progress(self, progress: ProgressUpdate) -> None:
        super().record_progress(progress)
        self._loop.call_soon_threadsafe(self.recorded.set)

    @override
    def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        super().record_checkpoint(checkpoint)
        self._loop.call_soon_threadsafe(self.recorded.set)


class Harness:
    """Runs commands with a runner of one style."""

    def __init__(
        self,
        style: HandlerStyle,
        cancellation_timeout: timedelta = CANCELLATION_TIMEOUT,
        **options: Any,  # noqa: ANN401 options of the handler
    ) -> None:
        make: Any = Handler
        function = run_command_async if style is HandlerStyle.ASYNC else run_command
        self.style = style
        self.runner: Runner = runner_for(make(commands, function, style=style, **options), cancellation_timeout)
        self._finished: dict[TaskContext[Owner], asyncio.Event] = {}

    async def run(self, do: str, value: int = 1, limit: timedelta | None = None) -> Outcome:
        """Run a command, and return the outcome."""
        return await self.runner.run(Command(do=do, value=value), context(limit))

    async def start(
        self, do: str, limit: timedelta | None = None
    ) -> "tuple[TaskContext[Owner], asyncio.Task[Outcome]]":
        """Start a command, and wait until its handler has recorded progress or a checkpoint."""
        started = context(limit)
        assert isinstance(started.state, SignallingState)
        self._finished[started] = finished = asyncio.Event()
        running = asyncio.create_task(self.runner.run(Command(do=do), started, finished.set))
        recorded = asyncio.create_task(started.state.recorded.wait())
        await asyncio.wait((recorded, running), return_when=asyncio.FIRST_COMPLETED)
        recorded.cancel()
        return started, running

    async def finished(self, started: TaskContext[Owner]) -> None:
        """Wait until no code of a started command runs any more."""
        await self._finished[started].wait()


def context(timeout: timedelta | None = None) -> TaskContext[Owner]:
    """Return the context of a new attempt."""
    return TaskContext(
        job=JobInfo(UUID(int=1), "gallery", Priority.HIGH, {"title": "a"}, {}),
        stage=StageInfo(UUID(int=2), commands.name, 2, Empty(), Empty()),
        task_id=UUID(int=3),
        attempt=1,
        max_attempts=3,
        metadata=Owner(name="ada"),
        traceparent="00-00000000000000000000000000000001-0000000000000001-01",
        timeout=timeout,
        checkpoint=7,
        access=WorkerAccess(_unreachable_client),
        state=SignallingState(),
    )
