"""Handlers in processes: one that dies, hangs or leaks memory affects no other attempt."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jobnik_sdk import Completed, Failed, Handler, HandlerStyle, Released
from jobnik_sdk.execution.progress import Checkpoint
from jobnik_sdk.execution.runners import runner_for
from structlog.testing import capture_logs

from tests.integration.sdk.handler_functions import IMPORT_TIME, Command, commands, slow_import, unimportable
from tests.integration.sdk.handler_harness import Harness, context
from tests.support.processes import descendants, wait_until_gone

_SHORT = timedelta(milliseconds=50)


@pytest.fixture(scope="module")
async def harness() -> AsyncIterator[Harness]:
    """A harness whose processes are killed soon after a cancellation, shared by all tests."""
    harness = Harness(HandlerStyle.PROCESS, cancellation_timeout=_SHORT, concurrency=2)
    yield harness
    await harness.runner.close()


async def _pid(harness: Harness) -> int:
    outcome = await harness.run("return_pid")
    assert isinstance(outcome, Completed)
    return int(str(outcome.result).partition(":")[2].rstrip("}'"))


@pytest.mark.parametrize(("do", "exit_status"), [("crash", "killed by SIGSEGV"), ("exit", "exit code 7")])
async def test_death_of_a_process_fails_its_attempt_only(harness: Harness, do: str, exit_status: str) -> None:
    """The error has the exit status. Another process is not affected, and the next task gets a new process."""
    other, running = await harness.start("wait")
    outcome = await harness.run(do)
    assert outcome == Failed(
        "ProcessDiedError", f"The process of the handler died while it ran the task: {exit_status}.", ""
    )
    assert await harness.run("increment") == Completed(b'{"value":2}')
    assert not running.done()
    other.cancellation.request("drain")
    assert await running == Released("drain")


@pytest.mark.parametrize(("number", "name"), [(35, "signal 35"), (37, "signal 37"), (64, "SIGRTMAX")])
async def test_every_signal_frees_the_slot(harness: Harness, number: int, name: str) -> None:
    """Even a real-time signal ends only the attempt, and the error names the signal."""
    outcome = await harness.run("signal_itself", number)
    assert isinstance(outcome, Failed)
    assert outcome.message == f"The process of the handler died while it ran the task: killed by {name}."
    assert await harness.run("increment") == Completed(b'{"value":2}')


async def test_each_task_has_a_context_of_its_own(harness: Harness) -> None:
    """Context variables that one task sets, for its log lines for example, are not set for the next one."""
    pid = await _pid(harness)
    for _ in range(2):
        assert await harness.run("bind_a_variable") == Completed(b'{"value":0}')
    assert await _pid(harness) == pid


async def test_exit_code_that_the_application_has_collected(harness: Harness) -> None:
    """The slot becomes free even if other code of the worker waits for any process."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system then keeps no exit codes
    try:
        outcome = await harness.run("exit")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert isinstance(outcome, Failed)
    assert outcome.message == "The process of the handler died while it ran the task: unknown exit code."
    assert await harness.run("increment") == Completed(b'{"value":2}')


async def test_programs_of_a_replaced_process_are_killed() -> None:
    """The programs end with the process, even those in their own session. Until then, they outlive the attempt."""
    harness = Harness(HandlerStyle.PROCESS, recycle_after=2)
    current = context()
    assert await harness.runner.run(Command(do="start_a_session"), current) == Completed(b'{"value":0}')
    assert current.state.checkpoint is not None
    program = int(current.state.checkpoint.document)
    os.kill(program, 0)
    await _pid(harness)
    await wait_until_gone([program])
    await harness.runner.close()


async def test_process_is_reused(harness: Harness) -> None:
    """A process runs one task after the other; concurrent tasks run in other processes."""
    first = await _pid(harness)
    assert await _pid(harness) == first
    other, running = await harness.start("wait")
    assert await _pid(harness) != first
    other.cancellation.request("drain")
    await running


async def test_idle_process_that_dies_is_replaced(harness: Harness) -> None:
    """If an idle process is killed, no task fails, not even one that was just assigned to it."""
    for _ in range(3):
        pid = await _pid(harness)
        os.kill(pid, signal.SIGKILL)
        assert await _pid(harness) != pid


async def test_signals_do_not_end_a_process(harness: Harness) -> None:
    """SIGTERM and SIGINT do not end a handler's process or its guard, not even while it starts."""
    assert isinstance(await harness.run("ignore_signals"), Completed)
    others = set(descendants(os.getpid()))
    starting = Harness(HandlerStyle.PROCESS)
    running = asyncio.create_task(starting.run("increment"))
    while not (started := set(descendants(os.getpid())) - others):  # noqa: ASYNC110 no event tells
        await asyncio.sleep(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        for pid in started:
            os.kill(pid, number)
    assert await running == Completed(b'{"value":2}')
    await starting.runner.close()


async def test_hanging_process_is_killed(harness: Harness) -> None:
    """A process whose handler ignores cancellation is killed. Another process is not affected."""
    other, running = await harness.start("wait")
    current, ignoring = await harness.start("ignore_cancellation", timedelta(hours=1))
    with capture_logs() as logs:
        current.cancellation.request("timeout")
        outcome = await ignoring
    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.message) == ("TimeoutError", "The attempt took longer than 3600 s.")
    assert [line["event"] for line in logs] == ["handler ignored cancellation, abandoned"]
    await harness.finished(current)
    assert await harness.run("increment") == Completed(b'{"value":2}')
    assert not running.done()
    other.cancellation.request("drain")
    assert await running == Released("drain")


async def test_programs_of_a_killed_handler_are_killed(harness: Harness) -> None:
    """A program that the handler started does not outlive its process."""
    current, running = await harness.start("start_program")
    assert current.state.checkpoint is not None
    current.cancellation.request("job aborted")
    assert await running == Released("job aborted")
    await harness.finished(current)
    await wait_until_gone([int(current.state.checkpoint.document)])


async def test_forks_of_a_dead_process_are_killed(harness: Harness) -> None:
    """The exit of a process is noticed although its fork is still running, and then the fork is killed."""
    current = context()
    outcome = await harness.runner.run(Command(do="crash_with_a_fork"), current)
    assert isinstance(outcome, Failed)
    assert outcome.message == "The process of the handler died while it ran the task: killed by SIGSEGV."
    assert current.state.checkpoint is not None
    await wait_until_gone([int(current.state.checkpoint.document)])


async def test_blocked_system_call_is_interrupted() -> None:
    """A handler that sleeps is interrupted, and its process is reused."""
    harness = Harness(HandlerStyle.PROCESS)
    pid = await _pid(harness)
    current, running = await harness.start("sleep")
    current.cancellation.request("drain")
    assert await running == Released("drain")
    assert await _pid(harness) == pid
    await harness.runner.close()


async def test_cancelled_while_its_process_starts() -> None:
    """A task that is cancelled before its process is ready does not wait for it; the next task uses the process."""
    harness = Harness(HandlerStyle.PROCESS)
    current = context()
    running = asyncio.create_task(harness.runner.run(Command(do="exit"), current))
    await asyncio.sleep(0)
    current.cancellation.request("job aborted")
    assert await running == Released("job aborted")
    assert await harness.run("increment") == Completed(b'{"value":2}')
    await harness.runner.close()


async def test_checkpoint_survives_the_death_of_its_process(harness: Harness) -> None:
    """A checkpoint that was saved right before the death is available to the worker."""
    current = context()
    outcome = await harness.runner.run(Command(do="save_then_exit"), current)
    assert isinstance(outcome, Failed)
    assert current.state.checkpoint == Checkpoint(b'"last words"')


@pytest.mark.parametrize(
    ("do", "options", "reason"),
    [("return_pid", {"recycle_after": 2}, "tasks"), ("leak", {"memory_limit": 150_000_000}, "bytes of memory")],
)
async def test_process_is_replaced(do: str, options: dict[str, Any], reason: str) -> None:
    """After `recycle_after` tasks, or above `memory_limit`, a process ends, and the next task gets a new one."""
    harness = Harness(HandlerStyle.PROCESS, **options)
    first = await _pid(harness)
    with capture_logs() as logs:
        assert await harness.run(do) == Completed(b'{"value":%d}' % first)
    (line,) = logs
    assert (line["event"], line["pid"]) == ("handler process replaced", first)
    assert reason in line["reason"]
    assert await _pid(harness) != first
    await wait_until_gone([first])
    await harness.runner.close()


async def test_handler_that_cannot_be_imported_fails_its_tasks() -> None:
    """The error of the import is the error of the task."""
    runner = runner_for(Handler(commands, unimportable, style=HandlerStyle.PROCESS))
    for _ in range(2):
        outcome = await runner.run(Command(), context())
        assert isinstance(outcome, Failed)
        assert (outcome.error_type, outcome.message) == ("ModuleNotFoundError", "no module of this name here")
    await runner.close()


async def test_start_of_a_process_does_not_count_towards_the_time_limit() -> None:
    """The time limit starts when the process is ready."""
    runner = runner_for(Handler(commands, slow_import, style=HandlerStyle.PROCESS))
    assert await runner.run(Command(), context(IMPORT_TIME * 0.8)) == Completed(b'{"value":2}')
    await runner.close()


async def test_connection_is_opened_on_first_use() -> None:
    """A process whose handler does not use the manager does not import the HTTP client."""
    harness = Harness(HandlerStyle.PROCESS)
    assert await harness.run("count_http_clients") == Completed(b'{"value":0}')
    assert await harness.run("request_summary") == Completed(b'{"value":0}')
    assert await harness.run("count_http_clients") == Completed(b'{"value":3}')
    await harness.runner.close()


async def test_data_that_cannot_be_pickled_fails_its_task(harness: Harness) -> None:
    """Only the task that cannot be pickled fails."""
    command = Command.model_construct(do="increment", value=lambda: None)
    outcome = await harness.runner.run(command, context())
    assert isinstance(outcome, Failed)
    assert "lambda" in outcome.message
    assert await harness.run("increment") == Completed(b'{"value":2}')


async def test_processes_end_with_a_program_that_does_not_close_its_runner(tmp_path: Path) -> None:
    """A program that does not close its runner still exits, and its processes with it."""
    pid_file = tmp_path / "pid"
    program = f"""if True:
        import asyncio
        from pathlib import Path
        from jobnik_sdk import HandlerStyle
        from tests.integration.sdk.handler_harness import Harness
        async def main():
            outcome = await Harness(HandlerStyle.PROCESS).run("return_pid")
            Path({str(pid_file)!r}).write_text(str(outcome.result))
        asyncio.run(main())
    """
    command = [sys.executable, "-c", program]
    result = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")
    await wait_until_gone([int(pid_file.read_text().partition(":")[2].rstrip("}'"))])


async def test_processes_start_as_ever_whatever_a_handler_has_changed(tmp_path: Path) -> None:
    """They do not inherit a deleted directory, an empty environment, ignored signals or a closed standard input."""
    directory = tmp_path / "first"
    directory.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.sdk.process_state"),
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await program.communicate()
    assert program.returncode == 0, output.decode()
    seen = json.loads(output.splitlines()[-1])
    assert seen["before"]["directory"] == str(directory)
    assert seen["before"]["blocked_signals"] == []
    assert seen["after"] == seen["before"]
    assert seen["homeless"] == seen["before"] | {"directory": "/"}
