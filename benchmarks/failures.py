"""Measure what retryable failures cost: 200 pages from a server that answers 503 one time in three.

Run by ``make bench PART=failures``. Two worker processes fetch the pages, ten at a time each, with a real manager. The
time runs from the first claim of the stage to its completion. Each round measures a server without failures, and then
one with failures. Compare only the ratio.
"""

import asyncio
import itertools
import signal
import statistics
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

from jobnik_sdk import JobnikClient, JobType, NewStage, NewTask, Producer
from reference_manager.embedded import EmbeddedPostgres
from reference_manager.embedded.process import end_with_parent
from rich.console import Console

from benchmarks.page_worker import Page, pages
from tools.data_folder import temporary_data_folder
from tools.flaky_server import FlakyServer
from tools.manager import ManagerProcess

PAGES, WORKERS, ROUNDS = 200, 2, 5
ATTEMPTS = 20
"""Attempts per page, so that none fails for good."""
DELAY = 0.1
"""Seconds that the server takes for each answer."""
LIMIT = 2.0
"""How much longer the pages may take if one third of the answers are failures."""

crawl = JobType("crawl")


def main() -> None:
    """Run all rounds and print the times."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_data_folder())
        postgres = stack.enter_context(EmbeddedPostgres(folder))
        manager = stack.enter_context(ManagerProcess("--database-url", postgres.url))
        asyncio.run(_measure(manager.url))


async def _measure(manager_url: str) -> None:
    console = Console()
    numbers = itertools.count()
    async with AsyncExitStack() as stack:
        flaky = await stack.enter_async_context(FlakyServer(lambda _path: next(numbers) % 3 == 0, DELAY))
        healthy = await stack.enter_async_context(FlakyServer(lambda _path: False, DELAY))
        producer = Producer(await stack.enter_async_context(JobnikClient(manager_url)))
        for _ in range(WORKERS):
            await stack.enter_async_context(_worker(manager_url))
        await _seconds(producer, healthy)  # starts the workers' connections
        rounds = [(await _seconds(producer, healthy), await _seconds(producer, flaky)) for _ in range(ROUNDS)]
    without, with_failures = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(one[1] / one[0] for one in rounds)
    console.print(f"{PAGES} pages, {WORKERS} workers, median of {ROUNDS} rounds:")
    console.print(f"  without failures        {without:6.2f} s")
    console.print(f"  one third answered 503  {with_failures:6.2f} s")
    console.print(f"  ratio                   {ratio:6.2f}   (at most {LIMIT:g})")


async def _seconds(producer: Producer, server: FlakyServer) -> float:
    """Return how long it takes to fetch all pages from a server."""
    tasks = [NewTask(Page(url=f"{server.url}/{number}"), max_attempts=ATTEMPTS) for number in range(PAGES)]
    job = await producer.create_job(crawl, stages=[NewStage(pages, tasks)])
    await producer.wait_for_job(job, crawl)
    stage = await producer.get_stage(job.stages[0].id, pages)
    assert stage.start_time is not None  # noqa: S101 - the job is completed
    assert stage.end_time is not None  # noqa: S101 - as above
    return (stage.end_time - stage.start_time).total_seconds()


@asynccontextmanager
async def _worker(manager_url: str) -> AsyncGenerator[None]:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.page_worker", manager_url, preexec_fn=end_with_parent(signal.SIGTERM)
    )
    try:
        yield
    finally:
        worker.terminate()
        await worker.wait()
