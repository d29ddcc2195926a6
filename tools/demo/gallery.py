"""The job: a thumbnail of each picture, then one contact sheet of them all. Created and followed by way of the SDK."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jobnik_sdk import Empty, Job, JobStatus, JobType, NewTask, Producer, Stage, StageType, TaskStatus
from pydantic import BaseModel

from tools.demo.contact_sheet import ContactSheetTask, contact_sheets
from tools.demo.folders import Folders
from tools.demo.rendered_worker import STAGE_TYPE

ATTEMPTS = 3
_FINAL = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.ABORTED}
_POLL_INTERVAL = timedelta(milliseconds=100)
# Keeps a request well below the manager's limit of 1 MiB, however many pictures there are.
_TASKS_PER_REQUEST = 500


class GalleryData(BaseModel):
    """What the job as a whole is about."""

    pictures: int


class ThumbnailTask(BaseModel):
    """One picture to make a thumbnail of, as the rendered worker understands it."""

    source: Path
    target: Path
    size: int = 256


galleries = JobType("gallery", data=GalleryData)
thumbnails = StageType(STAGE_TYPE, task=ThumbnailTask)


@dataclass(frozen=True)
class Gallery:
    """The job and its stages, as the manager told last."""

    job: Job[GalleryData, Empty]
    stages: tuple[Stage[Empty, Empty], Stage[Empty, Empty]]


@dataclass(frozen=True)
class FailedTask:
    """A task that failed for good, and the file that it was about."""

    id: str
    file: Path
    attempts: int


async def create(producer: Producer, pictures: Sequence[Path], folders: Folders) -> Gallery:
    """Create the job with both stages and all tasks, then let it start."""
    job = await producer.create_job(galleries, GalleryData(pictures=len(pictures)))
    # Waiting, so that the stage cannot be finished before its last tasks are in.
    first = await producer.create_stage(job, thumbnails, waiting=True)
    tasks = [
        NewTask(
            # With the whole name in its own, no thumbnail takes another's place; a PNG keeps what is transparent.
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
    """Show the gallery to `observe` again and again until its job is finished; `observe` may raise to end this."""
    while True:
        gallery = await _read(producer, gallery)
        observe(gallery)
        if gallery.job.status in _FINAL:
            return gallery
        await asyncio.sleep(_POLL_INTERVAL.total_seconds())


async def failed_tasks(producer: Producer, gallery: Gallery) -> list[FailedTask]:
    """Read which tasks failed for good."""
    first, second = gallery.stages
    pictures = await producer.get_tasks(first, thumbnails)
    sheets = await producer.get_tasks(second, contact_sheets)
    files = [(task, task.data.source) for task in pictures] + [(task, task.data.target) for task in sheets]
    return [FailedTask(str(task.id), file, task.attempts) for task, file in files if task.status is TaskStatus.FAILED]


async def _read(producer: Producer, gallery: Gallery) -> Gallery:
    # The job first: once it is finished, the stages read after it are finished as well.
    job = await producer.get_job(gallery.job, galleries)
    first, second = gallery.stages
    return Gallery(job, (await producer.get_stage(first, thumbnails), await producer.get_stage(second, contact_sheets)))
