"""The job: a thumbnail of each picture, then a contact sheet of all thumbnails. The SDK creates and follows it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from jobnik_sdk import Empty, Job, JobStatus, JobType, NewTask, Producer, Stage, StageType, TaskStatus
from pydantic import BaseModel

from tools.demo.contact_sheet import ContactSheetTask, contact_sheets
from tools.demo.folders import Folders
from tools.demo.rendered_worker import STAGE_TYPE

ATTEMPTS = 3
_FINAL = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED}
_POLL_INTERVAL = timedelta(milliseconds=100)
# Keeps each request well below the manager's limit of 1 MiB.
_TASKS_PER_REQUEST = 500


class GalleryData(BaseModel):
    """Data of the job."""

    pictures: int


class ThumbnailTask(BaseModel):
    """A picture to make a thumbnail of, in the format that the rendered worker expects."""

    source: Path
    target: Path
    size: int = 256


AnyStage: TypeAlias = Stage[Any, Any, Any, Any, Any]

galleries = JobType("gallery", data=GalleryData)
thumbnails = StageType(STAGE_TYPE, task=ThumbnailTask)


@dataclass(frozen=True)
class Gallery:
    """The job and its stages, as last read from the manager."""

    job: Job[GalleryData, Empty]
    stages: tuple[AnyStage, AnyStage]


@dataclass(frozen=True)
class FailedTask:
    """A task that failed finally, with the file that it processed."""

    id: str
    file: Path
    attempts: int


async def create(producer: Producer, pictures: Sequence[Path], folders: Folders) -> Gallery:
    """Create the job with both stages and all tasks, then start it."""
    job = await producer.create_job(galleries, GalleryData(pictures=len(pictures)))
    # The stage waits, so that it cannot complete before its last tasks are created.
    first = await producer.create_stage(job, thumbnails, waiting=True)
    tasks = [
        NewTask(
            # The full name of the picture keeps the names of thumbnails unique; PNG keeps transparency.
            ThumbnailTask(source=picture, target=folders.thumbnails / f"{picture.name}.png"),
            max_attempts=ATTEMPTS,
        )
        for picture in pictures
    ]
    for start in range(0, len(tasks), _TASKS_PER_REQUEST):
        await producer.create_tasks(first, thumbnails, tasks[start : start + _TASKS_PER_REQUEST])
    second = await producer.create_stage(job, contact_sheets)
    sheet = ContactSheetTask(thumbnails=folders.thumbnails, target=folders.contact_sheet)
    await producer.create_tasks(second, contact_sheets, [NewTask(sheet, max_attempts=ATTEMPTS)])
    await producer.start_stage(first)
    return await _read(producer, Gallery(job, (first, second)))


async def follow(producer: Producer, gallery: Gallery, observe: Callable[[Gallery], None]) -> Gallery:
    """Pass the gallery to `observe` repeatedly until its job is final. `observe` may raise to stop earlier."""
    while True:
        gallery = await _read(producer, gallery)
        observe(gallery)
        if gallery.job.status in _FINAL:
            return gallery
        await asyncio.sleep(_POLL_INTERVAL.total_seconds())


async def failed_tasks(producer: Producer, gallery: Gallery) -> list[FailedTask]:
    """Return the tasks that failed finally."""
    first, second = gallery.stages
    pictures = await producer.get_tasks(first, thumbnails)
    sheets = await producer.get_tasks(second, contact_sheets)
    files = [(task, task.data.source) for task in pictures] + [(task, task.data.target) for task in sheets]
    return [FailedTask(str(task.id), file, task.attempts) for task, file in files if task.status is TaskStatus.FAILED]


async def _read(producer: Producer, gallery: Gallery) -> Gallery:
    # Read the job first: if it is final, the stages that are read after it are final too.
    job = await producer.get_job(gallery.job, galleries)
    first, second = gallery.stages
    return Gallery(job, (await producer.get_stage(first, thumbnails), await producer.get_stage(second, contact_sheets)))
