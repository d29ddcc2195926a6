"""Two workers fetch pages from a server that answers the first requests for a third of them with 503."""

from datetime import timedelta
from typing import Any, Final

import httpx2
import pytest
from jobnik_sdk import (
    BreakerOpened,
    Event,
    Handler,
    JobnikClient,
    JobStatus,
    JobType,
    NewStage,
    NewTask,
    Producer,
    StageType,
    TaskContext,
    TaskFailed,
    Worker,
)
from jobnik_sdk.testing.running import working
from prometheus_client import REGISTRY
from pydantic import BaseModel
from structlog.testing import capture_logs

from tests.support.plain_http import NO_CERTIFICATES
from tools.flaky_server import FlakyServer

PAGES: Final = 36
FLAKY: Final = PAGES // 3


class Page(BaseModel):
    """A page to fetch."""

    url: str


pages = StageType("flaky-pages", task=Page)


@pytest.mark.timeout(180)  # the first test starts a manager
async def test_retryable_failures_do_not_slow_a_stage_down(jobnik_manager: str) -> None:
    """No claim is paused, although a third of the pages fail at first; each failure is one warning without a stack."""
    tried: set[str] = set()
    events: list[Event] = []

    def fails_at_first(path: str) -> bool:
        is_first = path not in tried
        tried.add(path)
        return is_first and int(path.rpartition("/")[2]) < FLAKY

    async with (
        FlakyServer(fails_at_first) as server,
        httpx2.AsyncClient(verify=NO_CERTIFICATES) as http,
        JobnikClient(jobnik_manager) as client,
    ):

        async def fetch(page: Page, _context: TaskContext) -> None:
            (await http.get(page.url)).raise_for_status()

        tasks = [NewTask(Page(url=f"{server.url}/{number}"), max_attempts=3) for number in range(PAGES)]
        producer, crawl = Producer(client), JobType("crawl")
        job = await producer.create_job(crawl, stages=[NewStage(pages, tasks)])
        workers = [Worker(client, [Handler(pages, fetch, concurrency=4)], listeners=[events.append]) for _ in range(2)]
        with capture_logs() as logs:
            async with working(*workers):
                done = await producer.wait_for_job(job, crawl, timeout=timedelta(seconds=25))
        summary = await producer.get_summary(job.stages[0])

    assert (done.status, summary.completed, summary.total) == (JobStatus.COMPLETED, PAGES, PAGES)
    assert (len(server.requests), server.failures) == (PAGES + FLAKY, FLAKY)
    failed = [event for event in events if isinstance(event, TaskFailed)]
    assert ([event.context.attempt for event in failed], _opened(events)) == ([1] * FLAKY, [])
    lines = [line for line in logs if line["log_level"] in {"warning", "error"}]
    assert {(line["event"], line["log_level"], line["attempt"], line["retry_in_seconds"]) for line in lines} == {
        ("task failed", "warning", 1, 0)
    }
    assert len(lines) == FLAKY
    assert not any("exception" in line for line in lines)
    labels = {"stage_type": pages.name, "breaker": "handler"}
    assert REGISTRY.get_sample_value("jobnik_sdk_worker_circuit_breaker_opens_total", labels) == 0


def _opened(events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, BreakerOpened)]
