"""Containers: what they open before the worker is created, they close after it has ended."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar

import pytest
from dependency_injector import containers, providers
from jobnik_sdk import Handler, JobStatus, JobType, NewStage, Producer, TaskContext, Worker, WorkerSettings
from jobnik_sdk.testing import FakeManager, opened, work_off
from jobnik_sdk.worker import container as container_module
from structlog.testing import capture_logs

from tests.unit.sdk.script import Word, words

essay = JobType("essay")


async def prepend(task: Word, _context: TaskContext, *, text: str) -> Word:
    """Prepend a text."""
    return Word(text=text + task.text)


events: list[str] = []


@pytest.fixture(autouse=True)
def _no_events() -> None:
    events.clear()


async def open_pool(text: str) -> AsyncGenerator[str]:
    """Open a text, as dependency-injector expects it."""
    events.append(f"open {text}")
    yield text
    events.append(f"close {text}")


def open_file() -> Generator[None]:
    """Open something that needs no event loop."""
    events.append("open file")
    yield
    events.append("close file")


class Injected(containers.DeclarativeContainer):
    """A container of dependency-injector with resources of both kinds."""

    client = providers.Singleton(FakeManager().client)
    pool = providers.Resource(open_pool, "pool ")
    file = providers.Resource(open_file)
    function = providers.Singleton(partial, prepend, text=pool)
    handler = providers.Singleton(Handler, words, function)
    settings = providers.Singleton(WorkerSettings)
    worker = providers.Singleton(Worker, client, providers.List(handler))


async def _run_job(worker: Worker) -> list[str]:
    job = await Producer(worker.client).create_job(essay, stages=[NewStage(words, [Word(text="word")])])
    assert await work_off(worker, job) is JobStatus.COMPLETED
    tasks = await Producer(worker.client).get_tasks(job.stages[0].id, words)
    events.append("read")
    return [task.result.text for task in tasks if task.result]


async def test_resources_of_dependency_injector_are_open_while_the_worker_runs() -> None:
    """Asynchronous resources make the worker awaitable, which changes nothing for the container's author."""
    async with opened(Injected()) as worker:
        assert await _run_job(worker) == ["pool word"]
    assert set(events[:2]) == {"open pool ", "open file"}
    assert events[2] == "read"
    assert set(events[3:]) == {"close pool ", "close file"}


async def test_resource_can_be_overridden() -> None:
    """A test replaces the database by a value, and nothing is opened for it."""
    async with opened(Injected(pool="fake ")) as worker:
        assert await _run_job(worker) == ["fake word"]
    assert events == ["open file", "read", "close file"]


class Own:
    """A container without dependency-injector, whose worker is a context manager."""

    texts: ClassVar[list[str]] = []

    def settings(self) -> WorkerSettings:
        """Read the settings."""
        return WorkerSettings()

    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[Worker]:
        """Create the worker with an open pool."""
        async with asynccontextmanager(open_pool)("own ") as pool:
            yield Worker(FakeManager().client(), [Handler(words, partial(prepend, text=pool))])


async def test_worker_can_be_a_context_manager() -> None:
    """What it opens is closed after the client."""
    async with opened(Own()) as worker:
        assert await _run_job(worker) == ["own word"]
    assert events == ["open own ", "read", "close own "]


class _Awaitable(Own):
    async def worker(self) -> Worker:  # type: ignore[override]  # another kind of container
        return Worker(FakeManager().client(), [Handler(words, partial(prepend, text="awaited "))])


class _Plain(Own):
    def worker(self) -> Worker:  # type: ignore[override]  # another kind of container
        return Worker(FakeManager().client(), [Handler(words, partial(prepend, text="plain "))])


@pytest.mark.parametrize(("container", "result"), [(_Awaitable(), "awaited word"), (_Plain(), "plain word")])
async def test_worker_can_be_created_in_other_ways(container: Any, result: str) -> None:  # noqa: ANN401 any container
    """By a coroutine function or a plain function; its client is closed at the end."""
    async with opened(container) as worker:
        assert await _run_job(worker) == [result]


async def test_handlers_are_a_container_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are read once, and the worker gets all of them."""
    monkeypatch.setenv("JOBNIK_BASE_URL", "http://manager:1")
    handlers = [Handler(words, partial(prepend, text=""))]
    container = container_module.HandlerContainer(handlers)
    assert container.settings() is container.settings()
    worker = container.worker()
    assert (worker.client.base_url, list(worker.handlers)) == ("http://manager:1", handlers)


class _Failing(Own):
    def init_resources(self) -> None:
        events.append("init")
        raise ConnectionError("no database")

    def shutdown_resources(self) -> None:
        events.append("shutdown")


async def test_what_was_opened_is_closed_if_the_rest_fails() -> None:
    """The error of the resource is raised."""
    with pytest.raises(ConnectionError, match="no database"):
        async with opened(_Failing()):
            raise AssertionError("opened without its resources")
    assert events == ["init", "shutdown"]


async def open_nothing() -> AsyncGenerator[None]:
    """Fail, as without a database."""
    raise ConnectionError("no database")
    yield


class _Broken(Injected):
    database = providers.Resource(open_nothing)


async def test_resource_that_fails_to_open_is_named() -> None:
    """In one line, because the traceback consists of the lines of dependency-injector."""
    with capture_logs() as lines, pytest.raises(ConnectionError, match="no database"):
        async with opened(_Broken()):
            raise AssertionError("opened without its resources")
    assert [(line["event"], line["not_open"], line["reason"]) for line in lines] == [
        ("resources failed to open", ["database"], "ConnectionError: no database")
    ]


class _BrokenOwn(Own):
    @asynccontextmanager
    async def worker(self) -> AsyncGenerator[Worker]:
        """Fail before there is a worker."""
        async for _ in open_nothing():
            yield Worker(FakeManager().client(), [])


@pytest.mark.parametrize("container", [_Failing(), _BrokenOwn()])
async def test_own_container_that_fails_to_open_is_logged(container: Any) -> None:  # noqa: ANN401 any container
    """Without the names of its resources, which only the container knows."""
    with capture_logs() as lines, pytest.raises(ConnectionError, match="no database"):
        async with opened(container):
            raise AssertionError("opened without its resources")
    assert [(line["event"], line["not_open"], line["reason"]) for line in lines] == [
        ("resources failed to open", [], "ConnectionError: no database")
    ]


class _Stubborn(_Plain):
    def __init__(self, *, hangs: bool) -> None:
        self._hangs = hangs

    async def shutdown_resources(self) -> None:
        if self._hangs:
            await asyncio.Event().wait()
        raise ConnectionError("lost")


@pytest.mark.parametrize("hangs", [False, True])
async def test_resources_that_do_not_close_are_logged(monkeypatch: pytest.MonkeyPatch, *, hangs: bool) -> None:
    """The process ends all the same."""
    monkeypatch.setattr(container_module, "CLOSE_TIMEOUT", container_module.CLOSE_TIMEOUT / 100)
    with capture_logs() as lines:
        async with opened(_Stubborn(hangs=hangs)):
            pass
    wanted = "resources did not close in time, abandoned" if hangs else "resources failed to close"
    assert [line["event"] for line in lines] == [wanted]
