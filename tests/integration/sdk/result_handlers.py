"""Handlers of two stages, the second of which reads the results of the first. Processes import this module."""

from jobnik_sdk import StageType, TaskContext
from pydantic import BaseModel


class Number(BaseModel):
    """The data of a task, and its result."""

    value: int


class Sum(BaseModel):
    """The results of a stage, in order."""

    values: list[int]


numbers = StageType("numbers", task=Number, result=Number)


async def square(task: Number, _context: TaskContext) -> Number:
    """Square a number; refuse negative ones."""
    if task.value < 0:
        raise ValueError("negative")
    return Number(value=task.value**2)


async def collect(_task: Number, context: TaskContext) -> Sum:
    """Read all results in a coroutine."""
    return Sum(values=[number.value async for number in context.results(_numbers_of(context))])


def collect_plainly(_task: Number, context: TaskContext) -> Sum:
    """Read all results in a plain function."""
    return Sum(values=[number.value for number in context.results(_numbers_of(context))])


def _numbers_of(context: TaskContext) -> StageType[Number, Number]:
    """Return the type of the stage before, which each test names after its own."""
    return StageType(context.stage.type.removesuffix("-sum"), task=Number, result=Number)
