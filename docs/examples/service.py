"""A worker's whole process: a setting of its own, three handlers in three styles with slots of their own, a listener.

    python service.py http://127.0.0.1:8080

It prints:

    by a coroutine: ['Hello, Ada', 'Hello, Grace']
    in a thread: ['ADA!', 'GRACE!']
    in a process: ['3 letters', '5 letters']
    exit code 0
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from jobnik_sdk import (
    Event,
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    NewStage,
    Producer,
    StageType,
    TaskCompleted,
    TaskContext,
    Worker,
    WorkerSettings,
    run,
)
from pydantic import BaseModel, Field


class Name(BaseModel):
    """A task's data."""

    name: str


class Line(BaseModel):
    """What comes of it."""

    text: str


class Settings(WorkerSettings):
    """What can be set: SHOUT_MARK, and all that every worker has."""

    shout_mark: str = Field(default="!", description="What a shout ends with.")


names = JobType("names")
greetings = StageType("greetings", task=Name, result=Line)
shouts = StageType("shouts", task=Name, result=Line)
lengths = StageType("lengths", task=Name, result=Line)
NAMES = [Name(name="Ada"), Name(name="Grace")]


async def greet(task: Name, _context: TaskContext) -> Line:
    """Wait for others, on the event loop."""
    await asyncio.sleep(0.01)
    return Line(text=f"Hello, {task.name}")


def shout(task: Name, _context: TaskContext, *, mark: str) -> Line:
    """Block, in a thread."""
    return Line(text=task.name.upper() + mark)


def measure(task: Name, _context: TaskContext) -> Line:
    """Compute, in a process: it finds this function by its name."""
    return Line(text=f"{len(task.name)} letters")


class Parts:
    """What the process is made of."""

    def __init__(self, manager: str) -> None:
        self._settings = Settings(jobnik_base_url=manager, probe_port=0)  # elsewhere: Settings(), from the environment
        self._left = 3 * len(NAMES)

    def settings(self) -> Settings:
        """Give what can be set."""
        return self._settings

    def worker(self) -> Worker:
        """Wire the parts."""
        settings = self._settings
        return Worker(
            JobnikClient(settings.jobnik_base_url),
            [
                Handler(greetings, greet, concurrency=100),
                Handler(shouts, partial(shout, mark=settings.shout_mark), style=HandlerStyle.THREAD, concurrency=4),
                Handler(lengths, measure, style=HandlerStyle.PROCESS, concurrency=2, recycle_after=1000),
            ],
            listeners=[self._listen],
            drain_timeout=settings.drain_timeout,
        )

    def _listen(self, event: Event) -> None:
        """End the process with its last task; others go on until somebody else sends them SIGTERM."""
        if isinstance(event, TaskCompleted):
            self._left -= 1
            if self._left == 0:
                signal.raise_signal(signal.SIGTERM)


async def create(manager: str) -> Sequence[UUID]:
    """Create a job with a stage for each handler; return the stages' ids."""
    async with JobnikClient(manager) as client:
        stages = [NewStage(stage_type, NAMES) for stage_type in (greetings, shouts, lengths)]
        return [stage.id for stage in (await Producer(client).create_job(names, stages=stages)).stages]


async def show(manager: str, stages: Sequence[UUID]) -> None:
    """Print what the tasks of each stage have left."""
    async with JobnikClient(manager) as client:
        for stage, where in zip(stages, ("by a coroutine", "in a thread", "in a process"), strict=True):
            tasks = await Producer(client).get_tasks(stage, greetings)
            print(f"{where}: {[task.result.text for task in tasks if task.result is not None]}")


def main(manager: str) -> None:
    """Create work, do it in a process that ends with it, and show what came of it."""
    stages = asyncio.run(create(manager))
    code = run(Parts(manager))
    asyncio.run(show(manager, stages))
    print("exit code", code)


if __name__ == "__main__":
    main(sys.argv[1])
