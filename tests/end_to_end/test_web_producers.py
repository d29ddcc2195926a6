"""Flask, Django and FastAPI applications in real servers create jobs for one worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx2
import pytest
from jobnik_sdk import Handler, JobnikClient, JobStatus, TaskContext, Worker
from jobnik_sdk.testing import work_off

from tests.end_to_end.web.definitions import Count, Text, counts
from tests.support.plain_http import NO_CERTIFICATES
from tools.ports import free_port

ROOT: Final = Path(__file__).parents[2]
REQUESTS: Final = 24
START_SECONDS: Final = 60

GUNICORN: Final = (
    "gunicorn",
    "--preload",
    "--workers=2",
    "--worker-class=gthread",
    "--threads=4",
    "--no-control-socket",
)
SERVERS: Final = {
    "Flask in gunicorn": (*GUNICORN, "--bind=127.0.0.1:{port}", "tests.end_to_end.web.flask_app:app"),
    "Flask's own server": ("flask", "--app=tests.end_to_end.web.flask_app", "run", "--port={port}"),
    "Django in gunicorn": (*GUNICORN, "--bind=127.0.0.1:{port}", "tests.end_to_end.web.django_app:app"),
    "FastAPI in uvicorn": ("uvicorn", "--port={port}", "tests.end_to_end.web.fastapi_app:app"),
}


@contextmanager
def _served(command: tuple[str, ...], manager: str, log: Path) -> Generator[tuple[httpx2.Client, int]]:
    """Yield a client of a server and the id of its process, and check that it stops without an error."""
    port = free_port()
    arguments = [sys.executable, "-m", *(part.format(port=port) for part in command)]
    environment = os.environ | {"JOBNIK_BASE_URL": manager, "PYTHONPATH": str(ROOT)}
    with (
        log.open("w") as output,
        subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=output, stderr=output) as server,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", verify=NO_CERTIFICATES, timeout=30) as client,
    ):
        try:
            _wait_until_ready(client, server, log)
            yield client, server.pid
        finally:
            server.send_signal(signal.SIGINT if "flask" in command else signal.SIGTERM)
            server.wait(30)
    assert "Traceback" not in log.read_text()


def _wait_until_ready(client: httpx2.Client, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.get("/")
        except httpx2.TransportError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


async def count_words(task: Text, _context: TaskContext) -> Count:
    """Handle the tasks of all applications."""
    return Count(words=len(task.text.split()))


@pytest.mark.timeout(150)  # each server is a program that imports its framework and the SDK
@pytest.mark.parametrize("name", SERVERS)
async def test_jobs_are_created_by_views(name: str, jobnik_manager: str, tmp_path: Path) -> None:
    """Concurrent requests each create one job, also in forked workers of a server that has used its producer."""
    with _served(SERVERS[name], jobnik_manager, tmp_path / "log") as (client, server):

        def create(number: int) -> dict[str, Any]:
            answer = client.post("/essays", content="word " * number)
            assert answer.status_code == 200, (tmp_path / "log").read_text()
            return answer.json()

        with ThreadPoolExecutor(8) as threads:
            created = list(threads.map(create, range(1, REQUESTS + 1)))
        assert len({answer["id"] for answer in created}) == REQUESTS
        assert (server in {answer["process"] for answer in created}) == ("gunicorn" not in name)
        async with JobnikClient(jobnik_manager) as jobs:
            worker = Worker(jobs, [Handler(counts, count_words, concurrency=8)])
            assert await work_off(worker, UUID(created[-1]["id"])) is JobStatus.COMPLETED
        assert client.get(f"/essays/{created[-1]['id']}").json() == {"words": [REQUESTS]}
