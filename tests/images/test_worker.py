"""A worker's image, running with a manager from its image."""

import os
from collections.abc import Callable, Generator
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from jobnik_sdk import JobnikClient, JobStatus, JobType, NewStage, Producer, StageType
from PIL import Image as Picture
from pydantic import BaseModel

from tests.images.buildah import Image
from tests.images.containers import ANY_USER, OWN_USER, Container

# The first test waits until the images are built.
pytestmark = pytest.mark.timeout(600)

Run = Callable[..., Container]


class Thumbnail(BaseModel):
    """A task of the worker with the example."""

    source: str
    target: str


class Work(BaseModel):
    """A task of the worker without the example."""

    text: str


thumbnails = StageType("thumbnail-worker", task=Thumbnail)
work = StageType("private-worker", task=Work)
job_type = JobType("image")


@pytest.fixture(scope="module")
def manager(manager_image: Image, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Run the manager's image and return its URL."""
    serve = ("serve", "--host", "127.0.0.1", "--port", "0")
    tmp = tmp_path_factory.mktemp("manager")
    with Container(manager_image, *serve, tmp=tmp, JOBNIK_MANAGER_DATABASE_URL=database_url) as manager:
        yield manager.line("manager is ready")["url"]


@pytest.fixture
def start(manager: str, image: Image, run: Run) -> Callable[..., tuple[Container, str]]:
    """Return a function that starts the worker and returns it with the URL of its probes."""

    def start_worker(**options: str) -> tuple[Container, str]:
        worker = run(image, JOBNIK_BASE_URL=manager, PROBE_HOST="127.0.0.1", PROBE_PORT="0", **options)
        return worker, f"http://127.0.0.1:{worker.line('serving probes and metrics')['port']}"

    return start_worker


Start = Callable[..., tuple[Container, str]]


@pytest.mark.parametrize("image", ["worker_image"], indirect=True)
@pytest.mark.parametrize("user", [OWN_USER, ANY_USER])
async def test_worker_completes_a_job(
    manager: str, start: Start, user: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """As its own or any other user, the worker becomes ready, serves its probes, completes a job, and stops."""
    Picture.new("RGB", (640, 480)).save(tmp_path / "picture.png")
    worker, probes = start(user=user)

    seconds = worker.wait_for_status(f"{probes}/readyz", HTTPStatus.OK)

    assert "init" in worker.first_command  # it reaps the orphans of handlers
    paths = ("/livez", "/startupz", "/metrics")
    assert [httpx2.get(probes + path).status_code for path in paths] == [HTTPStatus.OK] * 3
    async with JobnikClient(manager) as client:
        producer = Producer(client)
        task = Thumbnail(source="/tmp/picture.png", target="/tmp/thumbnail.png")  # noqa: S108 - the worker's /tmp
        job = await producer.create_job(job_type, stages=[NewStage(thumbnails, [task])])
        assert (await producer.wait_for_job(job, job_type)).status is JobStatus.COMPLETED
    with Picture.open(tmp_path / "thumbnail.png") as thumbnail:
        assert thumbnail.size == (256, 192)
    uid, _, gid = user.partition(":")
    made = (tmp_path / "thumbnail.png").stat()
    assert (made.st_uid, made.st_gid) == (int(uid), int(gid))
    worker.terminate()
    assert worker.end() == 0
    record_property("ready", f"{seconds:.1f} s")


@pytest.mark.parametrize("image", ["private_worker_image"], indirect=True)
async def test_worker_finishes_its_task_before_it_stops(
    manager: str, start: Start, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """After SIGTERM the worker claims no more tasks, waits for its handler's process, reports, and exits with 0."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o644)
    worker, probes = start()
    seconds = worker.wait_for_status(f"{probes}/readyz", HTTPStatus.OK)
    async with JobnikClient(manager) as client:
        producer = Producer(client)
        job = await producer.create_job(job_type, stages=[NewStage(work, [Work(text="/tmp/pipe")])])  # noqa: S108

        with pipe.open("w") as writer:  # blocks until the handler reads
            worker.terminate()
            worker.line("worker draining")
            worker.wait_for_status(f"{probes}/readyz", HTTPStatus.SERVICE_UNAVAILABLE)
            writer.write("read to the end")

        assert worker.end() == 0
        (stage,) = [stage async for stage in producer.list_stages(job, work)]
        (task,) = [task async for task in producer.list_tasks(stage, work)]
        assert (await producer.get_job(job, job_type)).status is JobStatus.COMPLETED
        assert [attempt.outcome for attempt in await producer.get_attempts(task)] == ["COMPLETED"]
    record_property("ready", f"{seconds:.1f} s")
