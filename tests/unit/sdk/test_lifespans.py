"""What a handler shares between its attempts is open while they run, and closed when the worker has ended."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from jobnik_sdk import (
    Completed,
    ConfigurationError,
    Failed,
    Handler,
    HandlerStyle,
    JobStatus,
    JobType,
    NewStage,
    Producer,
    Released,
    StageType,
    TaskContext,
    Worker,
)
from jobnik_sdk.execution import lifespans
from jobnik_sdk.execution.runners import runner_for
from jobnik_sdk.testing import FakeManager, context_for, run_handler, work_off
from pydantic import BaseModel
from structlog.testing import capture_logs

from tests.unit.sdk.script import ScriptedManager, Word, words

essay: Final = JobType("essay")
THREAD: Final = HandlerStyle.THREAD
PROCESS: Final = HandlerStyle.PROCESS
others: Final = StageType("others", task=Word)


@asynccontextmanager
async def prefix() -> AsyncGenerator[str]:
    """Open a text."""
    yield "async "


@contextmanager
def plain_prefix() -> Generator[str]:
    """Open a text."""
    yield "plain "


async def prepend(task: Word, _context: TaskContext, text: str) -> Word:
    """Prepend the text of the lifespan."""
    return Word(text=text + task.text)


def plain_prepend(task: Word, _context: TaskContext, text: str) -> Word:
    """Prepend the text of the lifespan."""
    return Word(text=text + task.text)


async def do_nothing(_task: Word, _context: TaskContext, _value: object) -> None:
    """Do nothing with what is open."""


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (Handler(words, prepend, lifespan=prefix), "async word"),
        (Handler(words, plain_prepend, style=THREAD, lifespan=plain_prefix), "plain word"),
        (Handler(words, plain_prepend, style=PROCESS, lifespan=plain_prefix), "plain word"),
    ],
    ids=list(HandlerStyle),
)
async def test_function_receives_the_value(handler: Handler[Word, Word], text: str) -> None:
    """It is the third argument, in every style."""
    assert (await run_handler(handler, Word(text="word"))).result == Word(text=text)


class Recorder:
    """A lifespan of either kind that records what happens to it, and where."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.places: list[object] = []

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator["Recorder"]:
        """Record in a coroutine."""
        self._record("open", asyncio.current_task())
        try:
            yield self
        finally:
            self._record("close", asyncio.current_task())

    @contextmanager
    def plain_opened(self) -> Generator["Recorder"]:
        """Record in a thread."""
        self._record("open", threading.current_thread())
        yield self
        self._record("close", threading.current_thread())

    def _record(self, event: str, place: object) -> None:
        self.events.append(event)
        self.places.append(place)

    async def use(self, _task: Word, _context: TaskContext, value: "Recorder") -> None:
        """Record an attempt."""
        value.events.append("attempt")

    def plain_use(self, _task: Word, _context: TaskContext, value: "Recorder") -> None:
        """Record an attempt."""
        value.events.append("attempt")


silent: Final = StageType("silent", task=Word)


def do_nothing_plainly(_task: Word, _context: TaskContext, _value: object) -> None:
    """Do nothing with what is open."""


def _handler(
    style: HandlerStyle,
    lifespan: Callable[[], AbstractAsyncContextManager[object]],
    plain_lifespan: Callable[[], AbstractContextManager[object]],
) -> Handler[Word, Any, Any, Any, Any]:
    """Return a handler that does nothing, with the lifespan for its style."""
    if style is THREAD:
        return Handler(silent, do_nothing_plainly, style=THREAD, lifespan=plain_lifespan)
    return Handler(silent, do_nothing, lifespan=lifespan)


def _recording(style: HandlerStyle) -> tuple[Recorder, Handler[Word, Any, Any, Any, Any]]:
    recorder = Recorder()
    if style is THREAD:
        return recorder, Handler(silent, recorder.plain_use, style=THREAD, lifespan=recorder.plain_opened)
    return recorder, Handler(silent, recorder.use, lifespan=recorder.opened)


@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, THREAD])
async def test_lifespan_surrounds_claims_and_reports(manager: ScriptedManager, style: HandlerStyle) -> None:
    """It is open before the first claim and until the last report, in one task or thread."""
    recorder, handler = _recording(style)
    manager.before_claim = lambda: recorder.events.append("claim")
    manager.claims.append({"id": "0" * 32, **_TASK})
    await manager.run_until_empty(Worker(manager.client, [handler]))
    reports = len(manager.reports)
    assert recorder.events == ["open", "claim", "attempt", "claim", "close"]
    assert reports == 1
    assert recorder.places[0] is recorder.places[1]


_TASK: Final[dict[str, Any]] = {
    "stageId": "0" * 32,
    "data": {},
    "userMetadata": {},
    "attempts": 0,
    "maxAttempts": 3,
    "status": "IN_PROGRESS",
}


async def test_worker_ends_if_a_lifespan_cannot_be_opened(manager: ScriptedManager) -> None:
    """Nothing is claimed, the others are closed, and the log names the stage type."""
    recorder, handler = _recording(HandlerStyle.ASYNC)

    @asynccontextmanager
    async def failing() -> AsyncGenerator[None]:
        raise ConnectionError("no database")
        yield

    with capture_logs() as lines, pytest.raises(ConnectionError, match="no database"):
        await Worker(manager.client, [handler, Handler(others, do_nothing, lifespan=failing)]).run()
    assert recorder.events == ["open", "close"]
    assert manager.claim_count == 0
    assert [line["stage_type"] for line in lines if line["event"] == "lifespan failed to open"] == ["others"]


@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, THREAD])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseException])
@pytest.mark.parametrize("when", ["open", "close"])
async def test_any_exception_of_a_lifespan_is_an_error_of_the_lifespan(
    style: HandlerStyle, kind: type[BaseException], when: str
) -> None:
    """It neither stops the event loop nor passes for a stop of the worker."""

    @contextmanager
    def plain_failing() -> Generator[None]:
        if when == "open":
            raise kind("odd")
        yield
        raise kind("odd")

    @asynccontextmanager
    async def failing() -> AsyncGenerator[None]:
        with plain_failing():
            yield

    handler = _handler(style, failing, plain_failing)
    if when == "open":
        with pytest.raises(RuntimeError, match=f"the lifespan raised {kind.__name__}: odd"):
            await run_handler(handler, Word())
        return
    with capture_logs() as lines:
        assert isinstance((await run_handler(handler, Word())).outcome, Completed)
    assert [line["event"] for line in lines] == ["lifespan failed to close"]


@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, THREAD])
async def test_stop_interrupts_opening(manager: ScriptedManager, style: HandlerStyle) -> None:
    """A worker that is stopped while a database does not answer ends at once, and is not ready before."""
    worker: Worker
    may_go_on = threading.Event()

    @asynccontextmanager
    async def slow() -> AsyncGenerator[None]:
        assert not worker.ready
        worker.stop()
        await asyncio.Event().wait()
        yield

    @contextmanager
    def plain_slow() -> Generator[None]:
        worker.stop()
        may_go_on.wait()
        yield

    handler = _handler(style, slow, plain_slow)
    worker = Worker(manager.client, [handler])
    async with asyncio.timeout(30):
        await worker.run()
    may_go_on.set()
    assert manager.claim_count == 0


@pytest.mark.parametrize("style", [HandlerStyle.ASYNC, THREAD])
@pytest.mark.parametrize("hangs", [False, True])
async def test_lifespan_that_does_not_close_is_logged(
    monkeypatch: pytest.MonkeyPatch, style: HandlerStyle, *, hangs: bool
) -> None:
    """The runner ends all the same."""
    monkeypatch.setattr(lifespans, "CLOSE_TIMEOUT", lifespans.CLOSE_TIMEOUT / 100)
    release = threading.Event()

    @asynccontextmanager
    async def stubborn() -> AsyncGenerator[None]:
        yield
        if hangs:
            await asyncio.Event().wait()
        raise ConnectionError("lost")

    @contextmanager
    def plain_stubborn() -> Generator[None]:
        yield
        if hangs:
            release.wait()
        raise ConnectionError("lost")

    handler = _handler(style, stubborn, plain_stubborn)
    with capture_logs() as lines:
        assert isinstance((await run_handler(handler, Word())).outcome, Completed)
    release.set()
    wanted = "lifespan did not close in time, abandoned" if hangs else "lifespan failed to close"
    assert [(line["event"], line["stage_type"]) for line in lines] == [(wanted, "silent")]


@contextmanager
def numbered(log: Path) -> Generator[int]:
    """Record opening and closing in a file, and return the number of the process."""
    index = int(os.environ["JOBNIK_PROCESS_INDEX"])
    with log.open("a") as lines:
        lines.write(f"open {index}\n")
    yield index
    with log.open("a") as lines:
        lines.write(f"close {index}\n")


def name_process(task: Word, _context: TaskContext, index: int) -> Word:
    """Return the number of the process; die if asked to."""
    if task.text == "die":
        os._exit(1)
    return Word(text=str(index))


async def test_each_process_has_its_own_value(tmp_path: Path) -> None:
    """It is opened once for all tasks of the process, and closed when the process is replaced or shut down."""
    log = tmp_path / "log"
    handler = Handler(words, name_process, style=PROCESS, recycle_after=2, lifespan=partial(numbered, log))
    runner = runner_for(handler)
    for _ in range(3):
        assert await runner.run(Word(), context_for(words)) == Completed(b'{"text":"0"}')
    await runner.close()
    assert log.read_text().splitlines().count("open 0") == 2
    assert log.read_text().splitlines().count("close 0") == 2


async def test_number_of_a_process_that_died_is_used_again(tmp_path: Path) -> None:
    """Processes at the same time have the numbers from 0 to `concurrency` - 1."""
    handler = Handler(words, name_process, style=PROCESS, concurrency=2, lifespan=partial(numbered, tmp_path / "log"))
    runner = runner_for(handler)

    async def run(text: str) -> object:
        return await runner.run(Word(text=text), context_for(words))

    first = await asyncio.gather(run(""), run(""))
    died = await run("die")
    second = await asyncio.gather(run(""), run(""))
    await runner.close()
    both = {Completed(b'{"text":"0"}'), Completed(b'{"text":"1"}')}
    assert (set(first), set(second)) == (both, both)
    assert isinstance(died, Failed)


@contextmanager
def slow_to_close(log: Path) -> Generator[int]:
    """Record opening and closing, which takes a moment."""
    with numbered(log) as index:
        yield index
        time.sleep(0.5)


async def test_process_opens_its_lifespan_after_its_predecessor_has_ended(tmp_path: Path) -> None:
    """So that what the number stands for, such as a GPU, is never used twice."""
    log = tmp_path / "log"
    handler = Handler(words, name_process, style=PROCESS, recycle_after=1, lifespan=partial(slow_to_close, log))
    runner = runner_for(handler)
    for _ in range(2):
        assert await runner.run(Word(), context_for(words)) == Completed(b'{"text":"0"}')
    waiting = asyncio.create_task(runner.run(Word(), context := context_for(words)))
    await asyncio.sleep(0)
    context.cancel()
    assert await waiting == Released("job aborted")
    await runner.close()
    assert log.read_text().splitlines() == ["open 0", "close 0"] * 2


@contextmanager
def unavailable() -> Generator[str]:
    """Fail to open."""
    raise ConnectionError("no GPU")
    yield ""


async def test_attempt_fails_if_its_process_cannot_open_the_lifespan() -> None:
    """The error is that of the lifespan, and the attempt can be retried."""
    result = await run_handler(Handler(words, plain_prepend, style=PROCESS, lifespan=unavailable), Word())
    assert isinstance(result.outcome, Failed)
    assert (result.outcome.error_type, result.outcome.message) == ("ConnectionError", "no GPU")
    assert result.outcome.retryable


async def test_two_handlers_have_separate_values() -> None:
    """Even if they have the same lifespan: a container shares what is to be shared."""
    recorder = Recorder()
    client = FakeManager().client()
    worker = Worker(
        client,
        [
            Handler(stage_type, recorder.use, lifespan=recorder.opened)
            for stage_type in (silent, StageType("x", task=Word))
        ],
    )
    job = await Producer(client).create_job(essay, stages=[NewStage(silent, [Word()])])
    assert await work_off(worker, job) is JobStatus.COMPLETED
    assert recorder.events == ["open", "open", "attempt", "close", "close"]


def _generator() -> Generator[None]:
    yield


async def _async_generator() -> AsyncGenerator[None]:
    yield


async def _coroutine() -> object:
    return prefix()


@contextmanager
def _with_argument(_dsn: str) -> Generator[str]:
    yield ""


class _Model(BaseModel):
    pass


@pytest.mark.parametrize(
    ("lifespan", "message"),
    [
        (_generator, "decorate a generator function"),
        (_async_generator, "decorate a generator function"),
        (_coroutine, "must be a function that returns a context manager"),
        ("a pool", "must be a function that returns a context manager"),
        (_with_argument, "called without arguments"),
    ],
)
def test_lifespan_that_cannot_work_is_refused(lifespan: Any, message: str) -> None:  # noqa: ANN401 wrong on purpose
    """The handler cannot be created."""
    with pytest.raises(ConfigurationError, match=message):
        Handler(words, prepend, lifespan=lifespan)


@pytest.mark.parametrize(
    ("style", "function", "lifespan", "message"),
    [
        (HandlerStyle.ASYNC, prepend, plain_prefix, "must return an async context manager"),
        (HandlerStyle.ASYNC, prepend, _Model, "must return an async context manager, but .* returned _Model"),
        (THREAD, plain_prepend, prefix, "must return a plain context manager"),
    ],
)
async def test_lifespan_of_the_wrong_kind_is_refused(
    style: HandlerStyle,
    function: Any,  # noqa: ANN401 wrong on purpose
    lifespan: Any,  # noqa: ANN401 wrong on purpose
    message: str,
) -> None:
    """The worker ends before it claims anything."""
    handler: Any = Handler
    with pytest.raises(ConfigurationError, match=message):
        await run_handler(handler(words, function, style=style, lifespan=lifespan), Word())


async def test_process_cannot_have_an_async_lifespan() -> None:
    """The attempt fails, and says why."""
    handler: Any = Handler
    result = await run_handler(handler(words, plain_prepend, style=PROCESS, lifespan=prefix), Word())
    assert isinstance(result.outcome, Failed)
    assert "must return a plain context manager" in result.outcome.message


def _two_arguments(_task: Word, _context: TaskContext) -> None: ...


def test_function_must_accept_the_value() -> None:
    """A function with two arguments has no use for a lifespan."""
    make: Any = Handler
    with pytest.raises(ConfigurationError, match="and the value of its lifespan"):
        make(words, _two_arguments, style=THREAD, lifespan=plain_prefix)
