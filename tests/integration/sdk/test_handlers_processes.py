"""Handlers in processes: one that dies, hangs or grows takes no other task along."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jobnik_sdk import Completed, Failed, Handler, HandlerStyle, Released
from jobnik_sdk.execution.progress import Checkpoint
from jobnik_sdk.execution.runners import runner_for
from structlog.testing import capture_logs

from tests.integration.sdk.handler_functions import LOADING, Order, orders, slow_to_load, unloadable
from tests.integration.sdk.handler_site import Site, context

_BLINK = timedelta(milliseconds=50)


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Site]:
    """Processes that are killed soon if they do not end; all tests share them, as the tasks of a worker do."""
    site = Site(HandlerStyle.PROCESS, grace=_BLINK, concurrency=2)
    yield site
    await site.runner.close()


async def _pid(site: Site) -> int:
    ending = await site.run("tell_pid")
    assert isinstance(ending, Completed)
    return int(str(ending.result).partition(":")[2].rstrip("}'"))


async def _gone(pid: int) -> None:
    """Wait until a process has ended; nobody may have collected its exit code yet."""
    await asyncio.to_thread(_wait_until_gone, Path(f"/proc/{pid}/status"))


def _wait_until_gone(status: Path) -> None:
    deadline = time.monotonic() + 15  # the event loop of the tests waits for this thread in the end
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("do", "how"), [("crash", "killed by SIGSEGV"), ("exit", "exit code 7")])
async def test_death_fails_its_task_alone(site: Site, do: str, how: str) -> None:
    """A process that dies fails its task, and says how; the one beside it goes on, and the next gets a new one."""
    beside, running = await site.start("wait")
    ending = await site.run(do)
    assert ending == Failed("ProcessDiedError", f"The handler's process died in the middle of the task: {how}.", "")
    assert await site.run("answer") == Completed(b'{"value":2}')
    assert not running.done()
    beside.cancellation.request("drain")
    assert await running == Released("drain")


async def test_process_is_used_again(site: Site) -> None:
    """One task after the other is worked on by one process; another is there for those at the same time."""
    first = await _pid(site)
    assert await _pid(site) == first
    beside, running = await site.start("wait")
    assert await _pid(site) != first
    beside.cancellation.request("drain")
    await running


async def test_idle_process_that_dies_is_replaced(site: Site) -> None:
    """A process that is killed while it has nothing to do fails nothing, not even what it was given right then."""
    for _ in range(3):
        pid = await _pid(site)
        os.kill(pid, signal.SIGKILL)
        assert await _pid(site) != pid


async def test_signals_are_the_workers_to_answer(site: Site) -> None:
    """SIGTERM and SIGINT do not end a handler's process, not even one that has just been started."""
    assert isinstance(await site.run("ignore_signals"), Completed)
    others = set(multiprocessing.active_children())
    young = Site(HandlerStyle.PROCESS)
    running = asyncio.create_task(young.run("answer"))
    await asyncio.sleep(0)
    (process,) = set(multiprocessing.active_children()) - others
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid or 0, number)
    assert await running == Completed(b'{"value":2}')
    await young.runner.close()


async def test_hanging_process_is_killed(site: Site) -> None:
    """What ignores its timeout is killed after the grace; the process beside it goes on."""
    beside, running = await site.start("wait")
    current, stubborn = await site.start("be_stubborn", timedelta(hours=1))
    with capture_logs() as logs:
        current.cancellation.request("timeout")
        ending = await stubborn
    assert isinstance(ending, Failed)
    assert (ending.error_type, ending.message) == ("TimeoutError", "The attempt took longer than 3600 s.")
    assert [line["event"] for line in logs] == ["handler ignores its cancellation"]
    await site.freed(current)
    assert await site.run("answer") == Completed(b'{"value":2}')
    assert not running.done()
    beside.cancellation.request("drain")
    assert await running == Released("drain")


async def test_what_a_killed_handler_started_ends_with_it(site: Site) -> None:
    """A program that a handler has started does not outlive it."""
    current, running = await site.start("start_program")
    assert current.notes.checkpoint is not None
    current.cancellation.request("job aborted")
    assert await running == Released("job aborted")
    await site.freed(current)
    await _gone(int(current.notes.checkpoint.document))


async def test_what_a_dead_handler_forked_ends_with_it(site: Site) -> None:
    """The end of a process is heard although what it forked lives on, which ends then."""
    current = context()
    ending = await site.runner.run(Order(do="crash_with_a_fork"), current)
    assert isinstance(ending, Failed)
    assert ending.message == "The handler's process died in the middle of the task: killed by SIGSEGV."
    assert current.notes.checkpoint is not None
    await _gone(int(current.notes.checkpoint.document))


async def test_blocked_system_call_is_interrupted() -> None:
    """A handler that sleeps is interrupted like any other, and its process goes on."""
    site = Site(HandlerStyle.PROCESS)
    pid = await _pid(site)
    current, running = await site.start("sleep")
    current.cancellation.request("drain")
    assert await running == Released("drain")
    assert await _pid(site) == pid
    await site.runner.close()


async def test_cancelled_while_its_process_starts() -> None:
    """A task that need not begin any more does not wait for its process, which the next one takes."""
    site = Site(HandlerStyle.PROCESS)
    current = context()
    running = asyncio.create_task(site.runner.run(Order(do="exit"), current))
    await asyncio.sleep(0)
    current.cancellation.request("job aborted")
    assert await running == Released("job aborted")
    assert await site.run("answer") == Completed(b'{"value":2}')
    await site.runner.close()


async def test_checkpoint_outlives_its_process(site: Site) -> None:
    """What a handler saved right before its process died is known."""
    current = context()
    ending = await site.runner.run(Order(do="save_then_die"), current)
    assert isinstance(ending, Failed)
    assert current.notes.checkpoint == Checkpoint(b'"last words"')


@pytest.mark.parametrize(
    ("do", "options", "reason"),
    [("tell_pid", {"recycle_after": 2}, "tasks"), ("leak", {"memory_limit": 150_000_000}, "bytes of memory")],
)
async def test_process_is_replaced(do: str, options: dict[str, Any], reason: str) -> None:
    """A process that has done its share, or has grown too large, ends after its task, and the next gets a new one."""
    site = Site(HandlerStyle.PROCESS, **options)
    first = await _pid(site)
    with capture_logs() as logs:
        assert await site.run(do) == Completed(b'{"value":%d}' % first)
    (line,) = logs
    assert (line["event"], line["pid"]) == ("process is replaced", first)
    assert reason in line["reason"]
    assert await _pid(site) != first
    await _gone(first)
    await site.runner.close()


async def test_handler_that_cannot_be_loaded_fails_its_tasks() -> None:
    """Why a process could not load its handler is the error of the task."""
    runner = runner_for(Handler(orders, unloadable, style=HandlerStyle.PROCESS))
    for _ in range(2):
        ending = await runner.run(Order(), context())
        assert isinstance(ending, Failed)
        assert (ending.error_type, ending.message) == ("ModuleNotFoundError", "no module of this name here")
    await runner.close()


async def test_loading_a_handler_takes_no_time_of_its_task() -> None:
    """The time limit begins when there is a process to take the task."""
    runner = runner_for(Handler(orders, slow_to_load, style=HandlerStyle.PROCESS))
    assert await runner.run(Order(), context(LOADING * 0.8)) == Completed(b'{"value":2}')
    await runner.close()


async def test_connection_is_made_when_it_is_needed() -> None:
    """A process whose handler asks the manager nothing does not load what that takes."""
    site = Site(HandlerStyle.PROCESS)
    assert await site.run("count_http_clients") == Completed(b'{"value":0}')
    assert await site.run("look_for_manager") == Completed(b'{"value":0}')
    assert await site.run("count_http_clients") == Completed(b'{"value":3}')
    await site.runner.close()


async def test_data_that_cannot_travel_fails_its_task(site: Site) -> None:
    """A task that cannot be pickled fails alone."""
    order = Order.model_construct(do="answer", value=lambda: None)
    ending = await site.runner.run(order, context())
    assert isinstance(ending, Failed)
    assert "lambda" in ending.message
    assert await site.run("answer") == Completed(b'{"value":2}')


async def test_processes_end_with_a_program_that_forgot_them(tmp_path: Path) -> None:
    """A program that does not close its runner ends all the same, and its processes with it."""
    told = tmp_path / "pid"
    program = f"""if True:
        import asyncio
        from pathlib import Path
        from jobnik_sdk import HandlerStyle
        from tests.integration.sdk.handler_site import Site
        async def main():
            ending = await Site(HandlerStyle.PROCESS).run("tell_pid")
            Path({str(told)!r}).write_text(str(ending.result))
        asyncio.run(main())
    """
    command = [sys.executable, "-c", program]
    ended = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")
    await _gone(int(told.read_text().partition(":")[2].rstrip("}'")))
