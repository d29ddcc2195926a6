"""A FastAPI application that creates jobs: in a coroutine with a Producer, and in a thread with a SyncProducer."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from fastapi import FastAPI, Request
from jobnik_sdk import NewStage, Producer, SyncProducer

from tests.end_to_end.web.definitions import Text, counts, essay

producer = Producer(os.environ["JOBNIK_BASE_URL"])
sync_producer = SyncProducer(os.environ["JOBNIK_BASE_URL"])


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
    """Close the connections when the application stops."""
    async with producer:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/essays")
async def create_essay(request: Request) -> dict[str, Any]:
    """Create a job."""
    text = (await request.body()).decode()
    job = await producer.create_job(essay, stages=[NewStage(counts, [Text(text=text)])])
    return {"id": str(job.id), "process": os.getpid()}


@app.get("/essays/{job_id}")
def read_essay(job_id: UUID) -> dict[str, Any]:
    """Return the results of a job."""
    stages = sync_producer.list_stages(job_id, counts)
    tasks = [task for stage in stages for task in sync_producer.list_tasks(stage)]
    return {"words": [task.result and task.result.words for task in tasks]}
