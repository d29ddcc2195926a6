"""Errors before a worker's process has started; the integration tests run whole processes."""

import asyncio

import pytest
from jobnik_sdk import ConfigurationError, Handler, SettingsError, TaskContext, Worker, WorkerSettings, run
from jobnik_sdk.testing import FakeManager

from tests.unit.sdk.script import Word, words


class _ContainerWithoutSettings:
    def settings(self) -> WorkerSettings:
        raise SettingsError("ONE is not set: it has no default.\nTWO: it is not valid JSON.")

    def worker(self) -> Worker:
        raise AssertionError("a worker is created without settings")


def test_invalid_settings_are_named_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and each setting has a line of its own."""
    assert run(_ContainerWithoutSettings()) == 2
    assert capsys.readouterr().err == "ONE is not set: it has no default.\nTWO: it is not valid JSON.\n"


async def do_nothing(_task: Word, _context: TaskContext) -> Word:
    """Return nothing new."""
    return Word()


def test_handlers_alone_have_the_settings_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are read and checked as those of a container."""
    monkeypatch.setenv("JOBNIK_BASE_URL", "no address")
    assert run([Handler(words, do_nothing)]) == 2
    assert capsys.readouterr().err.startswith("JOBNIK_BASE_URL: ")


async def test_run_is_refused_on_a_running_event_loop() -> None:
    """The error says what to await instead."""
    with pytest.raises(ConfigurationError, match=r"^run\(\.\.\.\) starts an event loop.* await worker\.run\(\)"):
        run([Handler(words, do_nothing)])


async def test_run_is_refused_in_another_thread() -> None:
    """Signals would not reach it. The error says what to call instead."""
    with pytest.raises(ConfigurationError, match=r"^run\(\.\.\.\) works only in the main thread.*asyncio\.run\("):
        await asyncio.to_thread(run, [Handler(words, do_nothing)])


async def test_a_worker_runs_once_at_a_time() -> None:
    """A second call of its `run` is refused, whichever thread it is in, and the first one can still be stopped."""
    client = FakeManager().client()
    worker = Worker(client, [Handler(words, do_nothing)])
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    with pytest.raises(ConfigurationError, match=r"^This worker is running already"):
        await worker.run()
    with pytest.raises(ConfigurationError, match=r"^This worker is running already"):
        await asyncio.to_thread(lambda: asyncio.run(worker.run()))
    worker.stop()
    await running
    await client.aclose()
