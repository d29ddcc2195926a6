"""The results of earlier stages, in memory."""

import pytest
from jobnik_sdk import (
    ConfigurationError,
    Handler,
    JobStatus,
    JobType,
    NewStage,
    Producer,
    StageType,
    TaskContext,
    UnsupportedError,
    Worker,
)
from jobnik_sdk.testing import FakeManager, context_for, work_off

from tests.integration.sdk.result_handlers import Number, Sum, collect, collect_plainly, numbers, square

sums = StageType("numbers-sum", task=Number, result=Sum)
job_type = JobType("numbers")
NUMBERS = [Number(value=value) for value in (1, 2, 3)]


async def test_results_of_several_stages_follow_one_another() -> None:
    """In the order of the stages; other jobs do not matter."""
    fake = FakeManager()
    producer = Producer(fake.client())
    await producer.create_job(job_type, stages=[NewStage(numbers, [Number(value=9)])])
    stages = [NewStage(numbers, NUMBERS[:2]), NewStage(numbers, NUMBERS[2:]), NewStage(sums, [Number(value=0)])]
    job = await producer.create_job(job_type, stages=stages)
    worker = Worker(fake.client(), [Handler(numbers, square), Handler(sums, collect)])
    assert await work_off(worker, job) is JobStatus.COMPLETED
    (task,) = fake.tasks(sums)
    assert task.result == Sum(values=[1, 4, 9])


async def test_results_can_be_prepared_for_a_test() -> None:
    """For coroutines and plain functions, without a manager."""
    context = context_for(sums, results={numbers: NUMBERS})
    assert await collect(Number(value=0), context) == Sum(values=[1, 2, 3])
    assert collect_plainly(Number(value=0), context) == Sum(values=[1, 2, 3])


async def test_context_without_manager_has_no_results() -> None:
    """The error says what to do."""
    with pytest.raises(ConfigurationError, match="no results of 'numbers': pass them to context_for"):
        context_for(sums).results(numbers)


async def test_manager_that_keeps_no_results_is_named() -> None:
    """Rather than an empty list, which would look like a stage without tasks."""
    fake = FakeManager(part_a_only=True)
    producer = Producer(fake.client())
    job = await producer.create_job(job_type, stages=[NewStage(sums, [Number(value=0)])])
    errors: list[Exception] = []

    async def read(_task: Number, context: TaskContext) -> Sum:
        try:
            return Sum(values=[number.value async for number in context.results(numbers)])
        except UnsupportedError as error:
            errors.append(error)
            return Sum(values=[])

    assert await work_off(Worker(fake.client(), [Handler(sums, read)]), job) is JobStatus.COMPLETED
    assert str(errors[0]).startswith("This manager lacks the feature 'results'")
