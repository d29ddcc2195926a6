"""A worker's whole process: its own setting, a handler of each style with its own concurrency, and an event listener.

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
    """The data of a task."""

    name: str


class Line(BaseModel):
    """The result of a task."""

    text: str


class Settings(WorkerSettings):
    """The settings of every worker, and SHOUT_MARK."""

    shout_mark: str = Field(default="!", description="The text at the end of a shout.")


names = JobType("names")
greetings = StageType("greetings", task=Name, result=Line)
shouts = StageType("shouts", task=Name, result=Line)
lengths = StageType("lengths", task=Name, result=Line)
NAMES = [Name(name="Ada"), Name(name="Grace")]


async def greet(task: Name, _context: TaskContext) -> Line:
    """Greet as a coroutine on the event loop, which suits work that waits for other services."""
    await asyncio.sleep(0.01)
    return Line(text=f"Hello, {task.name}")


def shout(task: Name, _context: TaskContext, *, mark: str) -> Line:
    """Shout in a thread, which suits work that blocks."""
    return Line(text=task.name.upper() + mark)


def measure(task: Name, _context: TaskContext) -> Line:
    """Count letters in a process, which imports this function by name; it suits work that computes in Python."""
    return Line(text=f"{len(task.name)} letters")


class Container:
    """The settings and the worker of the process."""

    def __init__(self, manager: str) -> None:
        self._settings = Settings(jobnik_base_url=manager, probe_port=0)  # usually Settings(), from the environment
        self._left = 3 * len(NAMES)

    def settings(self) -> Settings:
        """Return the settings."""
        return self._settings

    def worker(self) -> Worker:
        """Create the worker with its client and its handlers."""
        settings = self._settings
        return Worker.from_settings(
            settings,
            [
                Handler(greetings, greet, concurrency=100),
                Handler(shouts, partial(shout, mark=settings.shout_mark), style=HandlerStyle.THREAD, concurrency=4),
                Handler(lengths, measure, style=HandlerStyle.PROCESS, concurrency=2, recycle_after=1000),
            ],
            listeners=[self._listen],
        )

    def _listen(self, event: Event) -> None:
        """End the process after its last task. Usually a worker runs until it receives SIGTERM from outside."""
        if isinstance(event, TaskCompleted):
            self._left -= 1
            if self._left == 0:
                signal.raise_signal(signal.SIGTERM)


async def create(manager: str) -> Sequence[UUID]:
    """Create a job with a stage for each handler, and return the ids of the stages."""
    async with JobnikClient(manager) as client:
        stages = [NewStage(stage_type, NAMES) for stage_type in (greetings, shouts, lengths)]
        return [stage.id for stage in (await Producer(client).create_job(names, stages=stages)).stages]


async def show(manager: str, stages: Sequence[UUID]) -> None:
    """Print the results of each stage."""
    async with JobnikClient(manager) as client:
        for stage, where in zip(stages, ("by a coroutine", "in a thread", "in a process"), strict=True):
            tasks = await Producer(client).get_tasks(stage, greetings)
            print(f"{where}: {[task.result.text for task in tasks if task.result is not None]}")


def main(manager: str) -> None:
    """Create a job, run the worker until the job is done, and print the results."""
    stages = asyncio.run(create(manager))
    code = run(Container(manager))
    asyncio.run(show(manager, stages))
    print("exit code", code)


if __name__ == "__main__":
    main(sys.argv[1])
