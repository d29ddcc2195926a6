"""The steps of the demo."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import structlog
from jobnik_sdk import JobnikClient, JobnikError, JobStatus, Producer

from tools.demo import gallery as galleries
from tools.demo import rendered_worker
from tools.demo.contact_sheet import contact_sheet_worker
from tools.demo.folders import Folders, database_folder
from tools.demo.gallery import FailedTask, Gallery
from tools.demo.processes import Background, background, log_events
from tools.demo.programs import beside_python, check_programs
from tools.demo.screen import Screen

_LOGS_OF_WORKERS = ("worker", "contact-sheet")
_STOP_LIMIT = timedelta(seconds=10)


async def run_demo(pictures: Sequence[Path], folders: Folders, screen: Screen) -> bool:
    """Run every step, then stop all processes. Return whether the job was completed.

    Raises:
        DemoError: The demo failed for a reason other than a bad picture.
    """
    screen.headline(f"Making thumbnails of {len(pictures)} pictures with a newly rendered worker")
    check_programs()
    folders.prepare()
    with database_folder() as data_dir:
        gallery, failed = await _steps(pictures, folders, screen, data_dir)
    # The workers have stopped by now, so their logs are complete.
    if gallery.job.status is JobStatus.COMPLETED:
        screen.success(gallery, folders)
        return True
    screen.failed_job([(task, _reason(task, folders)) for task in failed], folders.log("worker"))
    return False


async def _steps(
    pictures: Sequence[Path], folders: Folders, screen: Screen, data_dir: Path
) -> tuple[Gallery, list[FailedTask]]:
    # The manager takes a while to start, so the worker is rendered and installed meanwhile.
    async with _manager(data_dir, folders) as manager:
        with screen.step("Rendering the worker with Copier …", "Rendered the worker with Copier"):
            await rendered_worker.render(folders)
        with screen.step("Installing the worker with uv …", "Installed the worker with uv in its own environment"):
            await rendered_worker.install(folders)
        with screen.step("Starting the manager and its PostgreSQL …", "Started the manager and its PostgreSQL"):
            url = str((await manager.event("manager is ready"))["url"])
        try:
            return await _work(pictures, folders, screen, url)
        except JobnikError:
            # If the manager has ended, its log explains more than the client's error.
            manager.check_alive()
            raise


def _manager(data_dir: Path, folders: Folders) -> AbstractAsyncContextManager[Background]:
    command = [beside_python("jobnik-manager"), "serve", "--data-dir", str(data_dir), "--port", "0"]
    return background("manager", command, folders.log("manager"))


async def _work(
    pictures: Sequence[Path], folders: Folders, screen: Screen, manager_url: str
) -> tuple[Gallery, list[FailedTask]]:
    """Run both workers until the job is final."""
    async with (
        JobnikClient(manager_url) as client,
        rendered_worker.start(folders, manager_url) as worker,
        _contact_sheets(client, folders),
    ):
        producer = Producer(client)
        gallery = await galleries.create(producer, pictures, folders)
        with screen.stage_bars() as bars:

            def observe(gallery: Gallery) -> None:
                bars.show(gallery)
                worker.check_alive()

            gallery = await galleries.follow(producer, gallery, observe)
        return gallery, await galleries.failed_tasks(producer, gallery)


@asynccontextmanager
async def _contact_sheets(client: JobnikClient, folders: Folders) -> AsyncGenerator[None]:
    """Run the demo's own worker. It logs to a file, because the progress bars use the screen."""
    with _logging_into(folders.log("contact-sheet")):
        worker = contact_sheet_worker(client)
        running = asyncio.create_task(worker.run())
        try:
            yield
        finally:
            worker.stop()
            # If the manager has ended, the worker would keep trying to report to it.
            with suppress(TimeoutError):
                await asyncio.wait_for(running, _STOP_LIMIT.total_seconds())


@contextmanager
def _logging_into(log: Path) -> Generator[None]:
    with log.open("a") as file:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(default=str),
            ],
            logger_factory=structlog.WriteLoggerFactory(file),
        )
        try:
            yield
        finally:
            structlog.reset_defaults()


def _reason(task: FailedTask, folders: Folders) -> str:
    """Return why the last attempt of a task failed, from the log of its worker."""
    reason = "the reason is not in the workers' logs"
    for log in _LOGS_OF_WORKERS:
        for event in log_events(folders.log(log), "task failed"):
            if event.get("task_id") == task.id:
                reason = f"{event.get('error_type')}: {event.get('error_message')}"
    return reason
