"""The blocking producer: threads, forks, interrupts, callbacks, the current trace, and the exit of the process."""

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from socket import create_server

import pytest
from jobnik_sdk import (
    ConfigurationError,
    JobnikClient,
    JobStatus,
    JobType,
    NewStage,
    Producer,
    StageType,
    StreamError,
    StreamProgress,
    SyncProducer,
    UnreachableError,
    WaitTimeoutError,
    use_trace,
)
from jobnik_sdk.producer.blocking import background
from pydantic import BaseModel


class Number(BaseModel):
    """A task's data."""

    value: int


batch = JobType("batch")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def producer(manager_url: str) -> Generator[SyncProducer]:
    """A blocking producer, shared by the tests."""
    with SyncProducer(manager_url) as producer:
        yield producer


@pytest.fixture
def numbers(own_name: str) -> StageType[Number]:
    """A stage type that no other test uses."""
    return StageType(own_name, task=Number)


def test_threads_share_a_producer(producer: SyncProducer, numbers: StageType[Number]) -> None:
    """Calls from many threads run at the same time, in one background thread."""

    def create(value: int) -> int:
        tree = [NewStage(numbers, (Number(value=value) for _ in range(2)), waiting=True)]
        job = producer.create_job(batch, stages=tree)
        return sum(task.data.value for task in producer.list_tasks(job.stages[0]))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(create, range(40))) == [2 * value for value in range(40)]
    assert [thread.name for thread in threading.enumerate()].count("jobnik producer") == 1


def test_the_current_trace_is_used(producer: SyncProducer) -> None:
    """A job belongs to the trace of the calling thread, also from an iterator or another thread."""
    with use_trace(TRACEPARENT):
        assert producer.create_job(batch).traceparent == TRACEPARENT
    assert producer.create_job(batch).traceparent != TRACEPARENT


def test_iterables_and_callbacks_run_in_the_calling_thread(producer: SyncProducer, numbers: StageType[Number]) -> None:
    """They may belong to a thread, as database connections do, and may use the producer themselves."""
    tree = [NewStage(numbers, [Number(value=value) for value in range(700)], waiting=True) for _ in "ab"]
    job = producer.create_job(batch, stages=tree)
    first, second = job.stages
    threads: set[int] = set()
    created: list[int] = []

    def copies() -> Iterator[Number]:
        for task in producer.list_tasks(first):
            threads.add(threading.get_ident())
            yield task.data

    def note(progress: StreamProgress) -> None:
        threads.add(threading.get_ident())
        created.append(progress.created)
        producer.get_job(job)

    assert producer.stream_tasks(second, copies(), batch=600, in_flight=1, on_progress=note) == 700
    with pytest.raises(WaitTimeoutError):
        producer.wait_for_job(
            job, timeout=timedelta(milliseconds=1), on_progress=lambda _: threads.add(threading.get_ident())
        )
    assert (threads, created) == ({threading.get_ident()}, [600, 700])
    assert producer.get_summary(second).total == 1400


def test_a_source_that_fails_ends_the_stream(producer: SyncProducer, numbers: StageType[Number]) -> None:
    """The items before the failure are accounted for, and the exception is the cause of the error."""
    stage = producer.create_job(batch, stages=[NewStage(numbers, waiting=True)]).stages[0]

    def source() -> Iterator[Number]:
        for value in range(5):
            yield Number(value=value)
        raise LookupError("no more numbers")

    with pytest.raises(StreamError) as caught:
        producer.stream_tasks(stage, source(), batch=2, in_flight=1)
    assert isinstance(caught.value.__cause__, LookupError)
    assert (caught.value.created, caught.value.unsent) == (4, 4)
    with pytest.raises(StreamError) as stopped:
        producer.stream_tasks(stage, [Number(value=1)], on_progress=lambda _: next(iter(())))
    assert isinstance(stopped.value.__cause__, RuntimeError)
    assert stopped.value.created == 1


def test_an_exit_of_the_source_is_not_a_failure(producer: SyncProducer, numbers: StageType[Number]) -> None:
    """`SystemExit` leaves the call as it is, and the stream is cancelled."""
    stage = producer.create_job(batch, stages=[NewStage(numbers, waiting=True)]).stages[0]

    def source() -> Iterator[Number]:
        yield Number(value=1)
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        producer.stream_tasks(stage, source())
    assert producer.get_summary(stage).total == 0


def test_an_iterator_is_closed_early(producer: SyncProducer) -> None:
    """A loop can end early; an iterator that was dropped leaves nothing behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = producer.create_job(batch)
        for change in producer.watch_job(job):
            assert change.status is JobStatus.PENDING
            break
        jobs = producer.list_jobs(batch)
        assert next(jobs).id == job.id
        jobs.close()
        assert list(jobs) == []
        producer.list_jobs(batch)
        gc.collect()


def test_a_garbage_collection_closes_iterators(producer: SyncProducer) -> None:
    """It may run in any thread, even in the background thread, and does not block it."""
    job = producer.create_job(batch)
    changes = producer.watch_job(job)
    next(changes)
    cycle: list[object] = [changes]
    cycle.append(cycle)
    del changes, cycle

    async def collect() -> int:
        return gc.collect()

    assert background.run(collect()) > 0
    assert producer.get_job(job).id == job.id


def test_a_signal_interrupts_a_call(producer: SyncProducer) -> None:
    """`KeyboardInterrupt` is raised at once, and the call is cancelled."""
    job = producer.create_job(batch)
    main = threading.get_ident()
    started = time.monotonic()
    interrupt = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        producer.wait_for_job(job)
    assert time.monotonic() - started < 10
    assert producer.get_job(job).status is JobStatus.PENDING


async def test_a_running_loop_is_not_blocked(producer: SyncProducer) -> None:
    """In the thread of an event loop, the error says what to use instead; another thread may block."""
    with pytest.raises(ConfigurationError, match="Use a Producer with await"):
        producer.create_job(batch)
    with pytest.raises(ConfigurationError, match=r"asyncio\.to_thread"):
        next(producer.list_jobs(batch))
    job = await asyncio.to_thread(producer.create_job, batch)
    jobs = producer.list_jobs(batch)
    assert (await asyncio.to_thread(next, jobs)).id == job.id
    jobs.close()


def test_a_producer_is_closed(manager_url: str) -> None:
    """Its own client is closed with it, and one that was passed is not."""
    with SyncProducer(manager_url) as own:
        own.create_job(batch)
    with pytest.raises(RuntimeError, match="This client is closed"):
        own.create_job(batch)
    client = JobnikClient(manager_url)
    with SyncProducer(client) as shared:
        job = shared.create_job(batch)

    async def read_and_close() -> JobStatus:
        async with client:
            return (await Producer(client).get_job(job)).status

    assert asyncio.run(read_and_close()) is JobStatus.PENDING
    own.close()


def test_a_timeout_limits_each_call(producer: SyncProducer) -> None:
    """A short timeout ends a call; the producer that it was derived from keeps its own."""
    job = producer.create_job(batch)
    with create_server(("127.0.0.1", 0)) as silent:
        patient = SyncProducer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UnreachableError, match=r"the time limit of 0\.05 s has passed"):
            patient.with_timeout(timedelta(seconds=0.05)).get_job(job)
        patient.close()
    assert producer.get_job(job).id == job.id
    with pytest.raises(ConfigurationError, match=r"timeout of a producer must be 0\.001 s to 365 days, not 0:00:00"):
        producer.with_timeout(timedelta())
    with pytest.raises(TypeError, match="timeout of a producer must be a timedelta"):
        SyncProducer("http://127.0.0.1:9", timeout=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def test_an_async_producer_owns_its_client(manager_url: str) -> None:
    """It is closed at the end of the block; one that was passed is not."""
    async with Producer(manager_url, timeout=timedelta(seconds=10)) as own:
        job = await own.create_job(batch)
    with pytest.raises(RuntimeError, match="This client is closed"):
        await own.get_job(job)
    async with JobnikClient(manager_url) as client:
        async with Producer(client) as shared:
            await shared.get_job(job)
        assert (await shared.get_job(job)).status is JobStatus.PENDING


@contextlib.contextmanager
def _forks_with_threads() -> Generator[None]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # this process has threads
        yield


def test_a_fork_gets_a_loop_and_connections_of_its_own(producer: SyncProducer) -> None:
    """The children of a fork use the producer at the same time as their parent, and leave its connections alone."""
    job = producer.create_job(batch)
    parents = background.loops[os.getpid()]
    jobs = producer.list_jobs(batch)
    next(jobs)

    def use() -> None:
        for _ in range(5):
            assert producer.get_job(job).id == job.id
        assert background.loops[os.getpid()] is not parents
        jobs.close()

    with _forks_with_threads():
        children = [multiprocessing.get_context("fork").Process(target=use) for _ in range(3)]
        for child in children:
            child.start()
    for _ in range(5):
        assert producer.get_job(job).id == job.id
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert producer.get_job(job).id == job.id
    assert background.loops[os.getpid()] is parents


PROGRAM = """
import asyncio, atexit, os, sys, threading
from jobnik_sdk import *
from jobnik_sdk.producer.blocking import background

producer = SyncProducer(sys.argv[1])
job = producer.create_job(JobType("batch"))
unfinished = producer.list_jobs()
next(unfinished)
waiting = threading.Thread(target=producer.wait_for_job, args=[job], daemon=True)
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", 0),
        ("sys.exit(5)", 5),
        ("asyncio.run(Producer(sys.argv[1]).get_job(job))", 0),
        ("waiting.start()", 0),
        ("atexit.register(producer.get_job, job); atexit.register(background.stop)", 0),
        ("if os.fork() == 0: producer.get_job(job)\nelse: assert os.wait()[1] == 0", 0),
    ],
    ids=["end", "exit", "loop", "a waiting thread", "a call after the end", "fork"],
)
def test_a_process_exits_without_noise(ending: str, status: int, manager_url: str) -> None:
    """Nothing has to be closed before the exit, whatever is still open, and nothing is printed."""
    program = PROGRAM.format(ending=ending)
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", program, manager_url]
    started = time.monotonic()
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=50)  # noqa: S603 our own program
    assert (result.returncode, result.stdout, result.stderr) == (status, "", "")
    assert time.monotonic() - started < 40
