"""Lists of managers that number their pages, have no stable order, and change while they are read."""

import random
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from jobnik_sdk import JobnikClient, Producer, StageType, Task, UnexpectedAnswerError
from pydantic import BaseModel

Make = Callable[..., dict[str, Any]]
STAGE = UUID(int=1)


class Item(BaseModel):
    """The data of a task."""

    n: int


items = StageType("items", task=Item)


class PagedManager:
    """Answers lists in numbered pages of the tasks that it has.

    Attributes:
        tasks: The tasks, in the order of the next answer.
        before_page: Called before each page with its number, from 1; 0 is the answer to a request without a number.
        sizes: The sizes of the pages that were requested; 0 without a number.
        fields: Further fields of a page.
    """

    def __init__(self, tasks: list[dict[str, Any]]) -> None:
        self.tasks = tasks
        self.before_page: Callable[[int], object] = lambda number: number
        self.sizes: list[int] = []
        self.largest_page = 100
        self.counts = True
        self.client = JobnikClient("http://manager", transport=httpx2.MockTransport(self._answer))

    async def read(self) -> list[Task[Item]]:
        """Return the tasks of the list as a producer reads them."""
        return await Producer(self.client).get_tasks(STAGE, items)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        query = request.url.params
        number, size = int(query.get("page", 0)), int(query.get("page_size", 0))
        self.sizes.append(size)
        self.before_page(number)
        assert size <= 100
        shown = min(size or 10, self.largest_page)
        start = (max(number, 1) - 1) * shown
        total = {"total": len(self.tasks)} if self.counts else {}
        return httpx2.Response(200, json={**total, "items": self.tasks[start : start + shown]})


@pytest.fixture
def tasks(task_json: Make) -> list[dict[str, Any]]:
    """Return 250 tasks."""
    return [task_json(data={"n": number}) for number in range(250)]


def _numbers(read: list[Task[Item]]) -> list[int]:
    return [task.data.n for task in read]


async def test_short_list_takes_one_request(tasks: list[dict[str, Any]]) -> None:
    """A list that fits into the first answer is complete."""
    manager = PagedManager(tasks[:10])
    assert (_numbers(await manager.read()), manager.sizes) == ([*range(10)], [0])
    manager = PagedManager([])
    assert (_numbers(await manager.read()), manager.sizes) == ([], [0])


async def test_all_pages_are_followed(tasks: list[dict[str, Any]]) -> None:
    """A longer list is read in pages of 100, and each entity is returned once."""
    manager = PagedManager(tasks)
    assert (_numbers(await manager.read()), manager.sizes) == ([*range(250)], [0, 100, 100, 100])


async def test_manager_may_return_smaller_pages(tasks: list[dict[str, Any]]) -> None:
    """The producer reads all pages even if they are smaller than requested."""
    manager = PagedManager(tasks)
    manager.largest_page = 30
    assert _numbers(await manager.read()) == [*range(250)]


async def test_pages_without_a_total_are_followed_to_the_end(tasks: list[dict[str, Any]]) -> None:
    """An empty page is the end."""
    manager = PagedManager(tasks)
    manager.counts = False
    assert _numbers(await manager.read()) == [*range(250)]


async def test_list_without_a_stable_order_is_complete(tasks: list[dict[str, Any]]) -> None:
    """Entities that are on two pages are returned once, and those that are on none are searched for again."""
    manager, generator = PagedManager(tasks), random.Random(1)  # noqa: S311 no secret
    manager.before_page = lambda _number: generator.shuffle(manager.tasks)
    read = _numbers(await manager.read())
    assert (len(read), sorted(read)) == (250, [*range(250)])


async def test_deletion_between_two_pages_hides_no_entity(tasks: list[dict[str, Any]]) -> None:
    """The entity that moved to a page that was already read is returned."""
    manager = PagedManager(tasks)

    def delete_the_first(number: int) -> None:
        if number == 2 and len(manager.tasks) == 250:
            del manager.tasks[0]

    manager.before_page = delete_the_first
    assert sorted(_numbers(await manager.read())) == [*range(250)]


async def test_addition_between_two_pages_is_returned(tasks: list[dict[str, Any]], task_json: Make) -> None:
    """An entity that was added at the end is returned."""
    manager = PagedManager(tasks)

    def add(number: int) -> None:
        if number == 3:
            manager.tasks.append(task_json(data={"n": 250}))

    manager.before_page = add
    assert sorted(_numbers(await manager.read())) == [*range(251)]


async def test_addition_at_the_beginning_hides_no_entity(tasks: list[dict[str, Any]], task_json: Make) -> None:
    """The entity that is now on two pages is returned once."""
    manager = PagedManager(tasks)

    def add(number: int) -> None:
        if number == 2 and len(manager.tasks) == 250:
            manager.tasks.insert(0, task_json(data={"n": -1}))

    manager.before_page = add
    assert sorted(_numbers(await manager.read())) == [*range(-1, 250)]


async def test_incomplete_list_is_an_error(tasks: list[dict[str, Any]]) -> None:
    """If some of the entities that the manager counts are never on a page, the error has both numbers."""
    manager = PagedManager([*tasks[:30], tasks[0]])
    with pytest.raises(UnexpectedAnswerError, match="has 31 entities, but only 30 of them") as caught:
        await manager.read()
    assert caught.value.code == "INCOMPLETE_LIST"


async def test_plain_list_may_repeat_an_entity(task_json: Make) -> None:
    """An entity that is twice in a list is returned once."""
    task = task_json(id=str(uuid4()), data={"n": 1})
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, json=[task, task]))
    async with JobnikClient("http://manager", transport=transport) as client:
        assert _numbers(await Producer(client).get_tasks(STAGE, items)) == [1]
