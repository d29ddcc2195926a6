"""The fork server of a worker: starts are as without it, and whatever dies, no attempt is lost and nothing is left."""

import asyncio
import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import Final

import pytest
from jobnik_sdk import Completed, Failed, HandlerStyle, Outcome, Released
from jobnik_sdk.execution.processes import fork_server, process
from structlog.testing import capture_logs

from tests.integration.sdk.handler_functions import Command
from tests.integration.sdk.handler_harness import Harness, context
from tests.support.processes import command_line, descendants, wait_until_gone

pytestmark = pytest.mark.skipif(not fork_server.is_available(), reason="handlers are not forked here")

_ROOT: Final = Path(__file__).parents[3]
_TWO: Final = Completed(b'{"value":2}')
_MAIN: Final = """
import asyncio
from tests.integration.sdk.start_state import main
if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
async def harness() -> AsyncIterator[Harness]:
    """A harness that keeps its processes, shared by all tests."""
    harness = Harness(HandlerStyle.PROCESS, timedelta(milliseconds=50), concurrency=4)
    yield harness
    await harness.runner.close()


@pytest.fixture
async def fresh() -> AsyncIterator[Harness]:
    """A harness with a new process for each task."""
    harness = Harness(HandlerStyle.PROCESS, timedelta(milliseconds=50), concurrency=4, recycle_after=1)
    yield harness
    await harness.runner.close()


def _files(pid: int) -> Sequence[str]:
    """Return what a process has open, standard input, output and error first."""
    with suppress(OSError):  # it has just ended
        files = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda file: int(file.name))
        return [str(file.readlink()) for file in files]
    return []


def _is_tracker(pid: int) -> bool:
    """Return whether this is the resource tracker of a process, which ends after all that has inherited its pipe."""
    return "resource_tracker" in command_line(pid)


def _is_forked(pid: int) -> bool:
    """Return whether this is a fork server, a guard or a handler: they have the same command line."""
    return fork_server.__name__ in command_line(pid)


def _servers(worker: int | None = None) -> Sequence[int]:
    """Return the process ids of the servers of a worker; None: of this process.

    A guard has the same command line, but no socket.
    """
    return [
        pid
        for pid in descendants(worker or os.getpid())
        if _is_forked(pid) and len(files := _files(pid)) == 4 and files[3].startswith("socket:")
    ]


async def _server() -> int:
    """Wait for the only server to appear, and return its process id."""
    async with asyncio.timeout(15):
        while len(servers := _servers()) != 1:  # noqa: ASYNC110 no event tells
            await asyncio.sleep(0.005)
    return servers[0]


@pytest.mark.parametrize("way", ["script", "module", "package", "code", "interactive", "options"])
async def test_processes_start_as_without_the_server(tmp_path: Path, way: str) -> None:
    """They see the same main module, import path, environment, signals and files. Only random numbers differ."""
    (tmp_path / "started_module.py").write_text(_MAIN)
    (tmp_path / "started_package").mkdir()
    (tmp_path / "started_package" / "__init__.py").touch()
    (tmp_path / "started_package" / "__main__.py").write_text(_MAIN)
    arguments = {
        "script": ["started_module.py", "an argument"],
        "module": ["-m", "started_module"],
        "package": ["-m", "started_package"],
        "code": ["-c", _MAIN],
        "interactive": ["-i"],
        "options": ["-X", "utf8", "-O", "-W", "error::UserWarning", "started_module.py"],
    }[way]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await program.communicate(f"{_MAIN}\n".encode() if way == "interactive" else b"")
    assert program.returncode == 0, errors.decode()
    assert errors.count(b"the process has ended") == 3
    first, second, spawned = (json.loads(line)["seen"] for line in output.splitlines())
    assert [seen.pop("forked") for seen in (first, second, spawned)] == [True, True, False]
    assert len({seen.pop("random") for seen in (first, second, spawned)}) == 3
    assert first == spawned
    assert second == spawned
    assert first["session"]
    assert first["main thread"]


async def test_handlers_share_one_server() -> None:
    """The handlers of a worker share one, which ends with the last of them. No zombie is left."""
    before = set(descendants(os.getpid()))
    harnesses = [Harness(HandlerStyle.PROCESS) for _ in range(3)]
    for harness in harnesses:
        assert await harness.run("increment") == _TWO
    assert len(_servers()) == 1
    for harness in harnesses:
        await harness.runner.close()
    assert [pid for pid in descendants(os.getpid()) if pid not in before and not _is_tracker(pid)] == []


async def test_server_and_guards_hold_no_files_of_the_worker(harness: Harness) -> None:
    """The server has only its connection, and a guard only the pipe that shows that it runs."""
    assert await harness.run("increment") == _TWO
    server = await _server()
    files = _files(server)
    assert (files[0].startswith("/memfd:jobnik"), files[1:3]) == (True, ["/dev/null"] * 2)
    assert len(files) == 4
    guards = [pid for pid in descendants(os.getpid()) if _is_forked(pid) and descendants(pid)]
    assert guards
    for guard in guards:
        *standard, exit_pipe = _files(guard)
        assert standard == files[:3]
        assert exit_pipe.startswith("pipe:")


async def test_death_of_the_server_hurts_no_attempt(harness: Harness) -> None:
    """An attempt that runs goes on, and the next process gets a new server."""
    other, running = await harness.start("wait")
    with capture_logs() as logs:
        os.kill(server := await _server(), signal.SIGKILL)
        await wait_until_gone([server])
        starting = [asyncio.create_task(harness.start("wait")) for _ in range(2)]
        started = [await start for start in starting]
    assert not running.done()
    assert {line["event"] for line in logs} <= {"fork server died"}
    for attempt, task in ((other, running), *started):
        attempt.cancellation.request("drain")
        assert await task == Released("drain")


@pytest.mark.parametrize("waits", [False, True])
async def test_server_that_dies_before_it_forks(fresh: Harness, *, waits: bool) -> None:
    """A start that the server has not carried out is repeated without it, whether it is new or has worked before."""
    server = 0
    if waits:
        assert await fresh.run("increment") == _TWO
        os.kill(server := await _server(), signal.SIGSTOP)
    running = [asyncio.create_task(fresh.run("increment")) for _ in range(2)]
    await asyncio.sleep(0)
    os.kill(server or await _server(), signal.SIGKILL)
    assert await asyncio.gather(*running) == [_TWO, _TWO]
    assert await fresh.run("increment") == _TWO


async def test_server_that_is_stopped(fresh: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time limit, the server is killed, and the process starts without it."""
    assert await fresh.run("increment") == _TWO
    os.kill(stopped := await _server(), signal.SIGSTOP)
    monkeypatch.setattr(process, "_FORK_TIMEOUT", timedelta(milliseconds=50))
    assert await asyncio.gather(*(fresh.run("increment") for _ in range(3))) == [_TWO] * 3
    await wait_until_gone([stopped])
    monkeypatch.undo()
    assert await fresh.run("increment") == _TWO
    assert await _server() != stopped


async def test_cancelled_while_the_server_is_stopped(fresh: Harness) -> None:
    """An attempt that waits for its process can be cancelled, and the runner can be closed."""
    assert await fresh.run("increment") == _TWO
    os.kill(server := await _server(), signal.SIGSTOP)
    current = context()
    running = asyncio.create_task(fresh.runner.run(Command(do="increment"), current))
    await asyncio.sleep(0)
    current.cancellation.request("drain")
    assert await running == Released("drain")
    os.kill(server, signal.SIGCONT)
    assert await fresh.run("increment") == _TWO


async def test_runner_that_is_opened_again() -> None:
    """A runner that was closed starts another server, which ends when the runner is closed again."""
    before = set(descendants(os.getpid()))
    harness = Harness(HandlerStyle.PROCESS)
    for _ in range(2):
        await harness.runner.open()
        assert await harness.run("increment") == _TWO
        assert len(set(_servers()) - before) == 1
        await harness.runner.close()
        assert [pid for pid in descendants(os.getpid()) if pid not in before and not _is_tracker(pid)] == []


async def test_runner_that_is_closed_twice() -> None:
    """Another runner keeps the server that they share, and ends it."""
    before = set(descendants(os.getpid()))
    closed, other = Harness(HandlerStyle.PROCESS), Harness(HandlerStyle.PROCESS, recycle_after=1)
    assert [await harness.run("increment") for harness in (closed, other)] == [_TWO, _TWO]
    servers = set(_servers()) - before
    assert len(servers) == 1
    for _ in range(2):
        await closed.runner.close()
    assert await other.run("increment") == _TWO
    assert set(_servers()) - before == servers
    await other.runner.close()
    assert [pid for pid in descendants(os.getpid()) if pid not in before and not _is_tracker(pid)] == []


async def test_start_while_too_many_files_are_open(fresh: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last file that a start needs cannot be opened: the process runs, can be killed, and its exit is noticed."""
    assert await fresh.run("increment") == _TWO

    def fail(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", fail)
    assert await fresh.run("increment") == _TWO
    current, running = await fresh.start("ignore_cancellation")
    current.cancellation.request("drain")
    assert await running == Released("drain")
    await fresh.finished(current)
    assert await fresh.run("exit") == Failed(
        "ProcessDiedError", "The process of the handler died while it ran the task: exit code 7.", ""
    )


async def test_server_that_cannot_be_watched_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files are open right after its start: the attempt fails, and nothing is left."""
    before = set(descendants(os.getpid()))
    harness = Harness(HandlerStyle.PROCESS)

    def fail(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", fail)
        outcome = await harness.run("increment")
    assert isinstance(outcome, Failed)
    assert outcome.error_type == "OSError"
    assert [pid for pid in descendants(os.getpid()) if pid not in before and not _is_tracker(pid)] == []
    assert await harness.run("increment") == _TWO
    await harness.runner.close()


async def test_main_module_with_unusual_members(fresh: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes and functions without a module, and an object that must not be asked for its class, do no harm."""

    class Unready:
        @property
        def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride] - as lazy objects do
            raise RuntimeError("the settings are not configured")

    class Homeless:
        pass

    Homeless.__module__ = None  # type: ignore[assignment]
    members = {"unready": Unready(), "Homeless": Homeless, "function": FunctionType((lambda: 0).__code__, {})}
    for name, member in members.items():
        monkeypatch.setattr(sys.modules["__main__"], name, member, raising=False)
    before = set(_servers())
    assert await fresh.run("increment") == _TWO
    assert len(set(_servers()) - before) == 1


async def test_many_starts_at_once() -> None:
    """Fifty tasks that arrive together get fifty processes."""
    harness = Harness(HandlerStyle.PROCESS, concurrency=50)
    outcomes = await asyncio.gather(*(harness.run("return_pid") for _ in range(50)))
    assert len({outcome.result for outcome in outcomes if isinstance(outcome, Completed)}) == 50
    assert len(_servers()) == 1
    await harness.runner.close()


@pytest.mark.timeout(180)  # many starts without the server, each of which takes its time on a busy machine
async def test_whatever_dies_during_a_start() -> None:
    """The server, a guard or the handler is killed at any moment: an attempt completes or fails, and none hangs."""
    harness = Harness(HandlerStyle.PROCESS, concurrency=4, recycle_after=1)
    numbers, killed = random.Random(1), 0  # noqa: S311 any moments
    before = set(descendants(os.getpid()))
    while killed < 8:
        running = [asyncio.create_task(harness.run("increment")) for _ in range(3)]
        await asyncio.sleep(numbers.random() * 0.04)
        victims = [pid for pid in descendants(os.getpid()) if pid not in before and _is_forked(pid)]
        if victims:
            killed += 1
            with suppress(ProcessLookupError):
                os.kill(numbers.choice(victims), signal.SIGKILL)
        outcomes: Sequence[Outcome] = await asyncio.gather(*running)
        assert all(
            outcome == _TWO or (isinstance(outcome, Failed) and outcome.error_type == "ProcessDiedError")
            for outcome in outcomes
        )
        assert outcomes.count(_TWO) >= 2
    await harness.runner.close()
    assert [pid for pid in descendants(os.getpid()) if pid not in before and not _is_tracker(pid)] == []


@pytest.mark.parametrize("stopped", [False, True])
async def test_worker_that_is_killed_during_a_start(*, stopped: bool) -> None:
    """Its server, guards and processes end, even if the server is stopped and a fork of the worker lives on."""
    program = """if True:
        import asyncio, os, time
        from jobnik_sdk import HandlerStyle
        from tests.integration.sdk.handler_harness import Harness
        async def main():
            harness = Harness(HandlerStyle.PROCESS, concurrency=8, recycle_after=1)
            await harness.run("increment")
            if (fork := os.fork()) == 0:
                time.sleep(60)
                os._exit(0)
            print(fork, flush=True)
            while True:
                await asyncio.gather(*(harness.run("increment") for _ in range(8)))
        asyncio.run(main())
    """
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert worker.stdout is not None
    fork = 0
    while not fork:
        line = await worker.stdout.readline()
        fork = int(line) if line.strip().isdigit() else 0
    await asyncio.sleep(random.random() * 0.2)  # noqa: S311 any moment
    if stopped:
        for pid in _servers(worker.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    processes = [pid for pid in descendants(worker.pid) if pid != fork and not _is_tracker(pid)]
    worker.kill()
    await wait_until_gone(processes)
    os.kill(fork, signal.SIGKILL)
    await worker.wait()


async def test_programs_that_start_threads_are_not_forked(tmp_path: Path) -> None:
    """If every Python program starts a thread, as some monitoring tools do, a fork would not be safe: none happens."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(1000000,), daemon=True).start()"
    )
    (tmp_path / "started_script.py").write_text(_MAIN)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "started_script.py"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{_ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await program.communicate()
    assert [json.loads(line)["seen"]["forked"] for line in output.splitlines()] == [False] * 3, errors.decode()
    assert errors.count(b"fork server unusable") == 1
    assert b"it has threads" in errors
