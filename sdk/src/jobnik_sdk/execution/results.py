"""The results of other stages of the job, for the handler of a later stage."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Generic
from uuid import UUID

from jobnik_sdk.errors import UnsupportedError
from jobnik_sdk.execution.access import Access
from jobnik_sdk.model.definitions import AnyStageType, ResultT, TaskStatus

PAGE_SIZE: Final = 500
"""The maximum number of results in memory at a time."""


class Results(Generic[ResultT]):
    """The results of the completed tasks in a job's stages of one type, in the order in which the tasks were created.

    Use `async for` in a coroutine, and `for` in a plain function. Each loop reads them again, page by page.

    Args:
        read: Returns a new iterator over the pages.
        wait: Blocks until an awaitable is done, and returns its value; see `TaskContext.wait`.
    """

    def __init__(
        self, read: Callable[[], AsyncGenerator[Sequence[ResultT]]], wait: Callable[[Awaitable[Any]], Any]
    ) -> None:
        self._read = read
        self._wait = wait

    async def __aiter__(self) -> AsyncIterator[ResultT]:
        """Yield each result, in a coroutine."""
        async for page in self._read():
            for result in page:
                yield result

    def __iter__(self) -> Iterator[ResultT]:
        """Yield each result, in a plain function."""
        pages = self._read()
        while (page := self._wait(anext(pages, None))) is not None:
            yield from page


async def read_results(access: Access, job_id: UUID, stage_type: AnyStageType) -> AsyncGenerator[Sequence[Any]]:
    """Yield pages of the results of a job's stages of this type.

    Raises:
        UnsupportedError: the manager does not keep results.
    """
    if "results" not in await access.client.capabilities():
        raise UnsupportedError("results", "let the handlers of the earlier stage store their results elsewhere")
    async for stage in access.producer.list_stages(job_id, stage_type):
        page: list[Any] = []
        async for task in access.producer.list_tasks(stage, stage_type, TaskStatus.COMPLETED):
            page.append(task.result)
            if len(page) == PAGE_SIZE:
                yield page
                page = []
        yield page
