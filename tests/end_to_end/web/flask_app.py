"""A Flask application that creates jobs."""

import os
from typing import Any
from uuid import UUID

from flask import Flask, request
from jobnik_sdk import NewStage, SyncProducer

from tests.end_to_end.web.definitions import Text, counts, essay

app = Flask(__name__)
producer = SyncProducer(os.environ["JOBNIK_BASE_URL"])
next(producer.list_jobs(essay), None)  # with gunicorn's --preload, the connection of this call is open during the fork


@app.post("/essays")
def create_essay() -> dict[str, Any]:
    """Create a job."""
    job = producer.create_job(essay, stages=[NewStage(counts, [Text(text=request.get_data(as_text=True))])])
    return {"id": str(job.id), "process": os.getpid()}


@app.get("/essays/<uuid:job_id>")
def read_essay(job_id: UUID) -> dict[str, Any]:
    """Return the results of a job."""
    stages = producer.list_stages(job_id, counts)
    tasks = [task for stage in stages for task in producer.list_tasks(stage)]
    return {"words": [task.result and task.result.words for task in tasks]}
