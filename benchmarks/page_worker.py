"""``python -m benchmarks.page_worker URL``: a worker that fetches pages, for the benchmark of failures."""

import asyncio
import signal
import sys

import httpx2
from jobnik_sdk import Handler, JobnikClient, StageType, TaskContext, Worker, configure_logging
from pydantic import BaseModel

CONCURRENCY = 10


class Page(BaseModel):
    """A page to fetch."""

    url: str


pages = StageType("pages", task=Page)


async def main(manager_url: str) -> None:
    """Run the worker until SIGTERM arrives."""
    async with JobnikClient(manager_url) as client, httpx2.AsyncClient() as http:

        async def fetch(page: Page, _context: TaskContext) -> None:
            (await http.get(page.url)).raise_for_status()

        worker = Worker(client, [Handler(pages, fetch, concurrency=CONCURRENCY)])
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
        await worker.run()


if __name__ == "__main__":
    configure_logging("ERROR")
    asyncio.run(main(sys.argv[1]))
