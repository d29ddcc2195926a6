"""Handlers read the results of earlier stages."""

from typing import Any

import pytest
from jobnik_sdk import Handler, HandlerStyle, JobnikClient, JobStatus, JobType, NewStage, Producer, StageType, Worker
from jobnik_sdk.testing import work_off

from tests.integration.sdk.result_handlers import Number, Sum, collect, collect_plainly, square

numbers_job = JobType("numbers")


@pytest.mark.parametrize("style", HandlerStyle)
async def test_results_of_a_stage_are_read_in_order(client: JobnikClient, own_name: str, style: HandlerStyle) -> None:
    """However many pages they have, and in every style."""
    numbers = StageType(own_name, task=Number, result=Number)
    sums = StageType(f"{own_name}-sum", task=Number, result=Sum)
    make: Any = Handler
    handlers = [
        Handler(numbers, square, concurrency=500),
        make(sums, collect if style is HandlerStyle.ASYNC else collect_plainly, style=style),
    ]
    producer = Producer(client)
    count = 1_001
    job = await producer.create_job(
        numbers_job,
        stages=[NewStage(numbers, [Number(value=value) for value in range(count)]), NewStage(sums, [Number(value=0)])],
    )
    assert await work_off(Worker(client, handlers), job) is JobStatus.COMPLETED
    (task,) = await producer.get_tasks(job.stages[1].id, sums)
    assert task.result == Sum(values=[value**2 for value in range(count)])
