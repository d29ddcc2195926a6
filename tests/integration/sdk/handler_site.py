"""Where handlers of tests run: the orders of `handler_functions`, in one style."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from jobnik_sdk import Empty, Handler, HandlerStyle, JobInfo, JobnikClient, Outcome, Priority, StageInfo, TaskContext
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.execution.progress import AttemptState, Checkpoint, Progress
from jobnik_sdk.execution.runner import GRACE, Runner
from jobnik_sdk.execution.runners import runner_for
from typing_extensions import override

from tests.integration.sdk.handler_functions import Order, Owner, obey, obey_async, orders

_nowhere = JobnikClient("http://127.0.0.1:1")


class HeardNotes(AttemptState):
    """AttemptState that say when something was noted."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.noted = asyncio.Event()

    @override
    def record_progress(self, progress: Progress) -> None:
        super().record_progress(progress)
        self._loop.call_soon_threadsafe(self.noted.set)

    @override
    def record_checkpoint(self, checkpoint: Checkpoint) -> None:
        super().record_checkpoint(checkpoint)
        self._loop.call_soon_threadsafe(self.noted.set)


class Site:
    """Runs orders in one style."""

    def __init__(self, style: HandlerStyle, grace: timedelta = GRACE, **options: Any) -> None:  # noqa: ANN401 passed on
        make: Any = Handler
        function = obey_async if style is HandlerStyle.ASYNC else obey
        self.style = style
        self.runner: Runner = runner_for(make(orders, function, style=style, **options), grace)
        self._freed: dict[TaskContext[Owner], asyncio.Event] = {}

    async def run(self, do: str, value: int = 1, limit: timedelta | None = None) -> Outcome:
        """Run an order to its end."""
        return await self.runner.run(Order(do=do, value=value), context(limit))

    async def start(
        self, do: str, limit: timedelta | None = None
    ) -> "tuple[TaskContext[Owner], asyncio.Task[Outcome]]":
        """Start an order and wait until its handler has noted something."""
        beginning = context(limit)
        assert isinstance(beginning.notes, HeardNotes)
        self._freed[beginning] = freed = asyncio.Event()
        running = asyncio.create_task(self.runner.run(Order(do=do), beginning, freed.set))
        noted = asyncio.create_task(beginning.notes.noted.wait())
        await asyncio.wait((noted, running), return_when=asyncio.FIRST_COMPLETED)
        noted.cancel()
        return beginning, running

    async def freed(self, started: TaskContext[Owner]) -> None:
        """Wait until nothing of a started order runs any more."""
        await self._freed[started].wait()


def context(timeout: timedelta | None = None) -> TaskContext[Owner]:
    """Return the context of a new attempt."""
    return TaskContext(
        job=JobInfo(UUID(int=1), "gallery", Priority.HIGH, {"title": "a"}, {}),
        stage=StageInfo(UUID(int=2), orders.name, 2, Empty(), Empty()),
        task_id=UUID(int=3),
        attempt=1,
        max_attempts=3,
        metadata=Owner(name="ada"),
        traceparent="00-00000000000000000000000000000001-0000000000000001-01",
        timeout=timeout,
        checkpoint=7,
        access=WorkerAccess(_nowhere),
        notes=HeardNotes(),
    )
