"""Handlers that create follow-up work and change metadata."""

from typing import Any

import pytest
from jobnik_sdk import (
    Empty,
    Handler,
    HandlerStyle,
    JobnikClient,
    JobType,
    NewTask,
    Producer,
    StageType,
    TaskCompleted,
    TaskFailed,
    Worker,
)
from jobnik_sdk.observability import trace_context

from tests.integration.sdk.handler_followups import Chapter, Mark, follow_up, follow_up_async


class Anything(Empty, extra="allow"):
    """Metadata of jobs, with any fields."""


@pytest.mark.parametrize("style", HandlerStyle)
async def test_handler_creates_work_and_sets_metadata(client: JobnikClient, own_name: str, style: HandlerStyle) -> None:
    """In each style a handler adds a stage to its job, within its trace, and replaces all metadata."""
    producer = Producer(client)
    chapters = StageType(own_name, task=Chapter, task_metadata=Mark, metadata=Mark)
    job_type = JobType("book", metadata=Anything)
    job = await producer.create_job(job_type, metadata=Anything.model_validate({"author": "ada"}))
    stage = await producer.create_stage(job, chapters, metadata=Mark(by="nobody"))
    pages = f"{own_name}-pages"
    (task,) = await producer.create_tasks(stage, chapters, [NewTask(Chapter(pages=pages), metadata=Mark(by="nobody"))])
    make: Any = Handler
    handlers = [make(chapters, follow_up_async if style is HandlerStyle.ASYNC else follow_up, style=style)]
    events: list[object] = []

    def listen(event: object) -> None:
        if isinstance(event, TaskCompleted | TaskFailed):
            events.append(event)
            worker.stop()

    worker = Worker(client, handlers, listeners=[listen])
    await worker.run()
    assert isinstance(events[0], TaskCompleted), events

    async def read(path: str) -> Any:  # noqa: ANN401 any JSON
        return (await client.request("GET", path)).json()

    assert (await read(f"/v1/tasks/{task.id}"))["userMetadata"] == {"by": "task"}
    _, created = await read(f"/v1/jobs/{job.id}/stages?should_return_tasks=true")
    assert (await read(f"/v1/stages/{stage.id}"))["userMetadata"] == {"by": "stage"}
    assert [page["data"] for page in created["tasks"]] == [{"number": 1}, {"number": 2}]
    metadata = (await read(f"/v1/jobs/{job.id}"))["userMetadata"]
    assert metadata["author"] == "ada"
    assert created["type"] == pages
    # Everything belongs to one trace, and the new stage and tasks to the span of the attempt.
    assert created["traceparent"] == created["tasks"][0]["traceparent"] == metadata["attempt"]
    assert trace_context.parse(metadata["attempt"]).trace_id == trace_context.parse(job.traceparent).trace_id
