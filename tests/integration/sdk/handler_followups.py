"""Handlers that change more than their own task. Processes import this module, so it is small."""

from jobnik_sdk import StageType, TaskContext
from pydantic import BaseModel


class Chapter(BaseModel):
    """The data of a task; `pages` is the name of the stage type to create."""

    pages: str


class Page(BaseModel):
    """The data of a follow-up task."""

    number: int


class Mark(BaseModel):
    """The metadata of tasks and stages."""

    by: str


async def follow_up_async(task: Chapter, context: TaskContext[Mark, BaseModel, Mark]) -> None:
    """Create a stage of pages, and replace the metadata of task, stage and job."""
    assert context.metadata == context.stage.metadata == Mark(by="nobody")
    pages = StageType(task.pages, task=Page)
    stage = await context.producer.create_stage(context.job.id, pages)
    await context.producer.create_tasks(stage.id, pages, [Page(number=1), Page(number=2)])
    await context.set_task_metadata(Mark(by="task"))
    await context.set_stage_metadata(Mark(by="stage"))
    await context.set_job_metadata({**context.job.metadata, "attempt": context.traceparent})


def follow_up(task: Chapter, context: TaskContext[Mark, BaseModel, Mark]) -> None:
    """Do the same in a thread or a process."""
    context.wait(follow_up_async(task, context))
