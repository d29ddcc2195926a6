"""One `make dev`: the manager starts first and stops last; worker and seed run in between, and restart on changes."""

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import httpx2
from jobnik_sdk.testing.process import manager_command

from jobnik_devtools.dev.config import HOST, DevConfig
from jobnik_devtools.dev.programs import Programs
from jobnik_devtools.dev.screen import Screen
from jobnik_devtools.dev.watcher import Watcher

_POLL_SECONDS: Final = 0.05
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """One `make dev`, from its start to Ctrl-C."""

    def __init__(self, config: DevConfig, screen: Screen) -> None:
        self._config = config
        self._screen = screen
        self._programs = Programs(config.project, screen)
        self._stop = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Run until a signal arrives or the manager ends, and return the exit code. A second signal stops at once.

        Raises:
            ConfigurationError: a port is not available, or no manager is installed.
        """
        config = self._config
        config.check_ports()
        (config.project / ".dev").mkdir(exist_ok=True)  # for files of the worker and of seed.py
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._handle_signal)
        watcher = Watcher(config.project, config.seed, self._screen)
        watching = asyncio.create_task(watcher.run())
        serve = [manager_command(), "serve", "--host", HOST, "--port", str(config.port), "--data-dir", str(config.data)]
        # SIGTERM even for an urgent stop: the manager has a PostgreSQL to stop.
        async with self._programs.running("manager", serve, {}, urgent_signal=signal.SIGTERM) as manager:
            supervising = asyncio.create_task(self._stop_with(manager))
            await _wait_for_first(self._until_live(), self._stop.wait())
            if not self._stop.is_set():
                self._screen.welcome(config)
                await asyncio.gather(self._run_worker(watcher.worker_changed), self._run_seed(watcher.seed_changed))
        await supervising
        await _cancel([watching])
        self._screen.info("Stopped: nothing is left running.")
        return self._code

    async def _stop_with(self, manager: Process) -> None:
        """Stop everything when the manager ends, since nothing works without it."""
        code = await manager.wait()
        if not self._stop.is_set():
            self._screen.error(f"The manager has ended (exit code {code}). Its last lines above show the reason.")
            self._code = 1
            self._stop.set()

    async def _until_live(self) -> None:
        async with httpx2.AsyncClient(base_url=self._config.manager, trust_env=False) as client:
            while True:
                with suppress(httpx2.TransportError):
                    if (await client.get("/liveness")).is_success:
                        return
                await asyncio.sleep(_POLL_SECONDS)

    async def _run_worker(self, changed: asyncio.Event) -> None:
        command = [sys.executable, "-m", self._config.package]
        probes = {"PROBE_HOST": HOST, "PROBE_PORT": str(self._config.probe_port)}
        await self._run_on_changes("worker", command, probes, changed)

    async def _run_seed(self, changed: asyncio.Event) -> None:
        if not self._config.seed.exists():
            await _wait_for_first(changed.wait(), self._stop.wait())
        await self._run_on_changes("seed", [sys.executable, str(self._config.seed)], {}, changed)

    async def _run_on_changes(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], changed: asyncio.Event
    ) -> None:
        """Run a program, and again after each change, until everything stops."""
        environment = {"JOBNIK_BASE_URL": self._config.manager, **environment}
        while not self._stop.is_set():
            changed.clear()
            async with self._programs.running(name, command, environment) as program:
                await _wait_for_first(program.wait(), changed.wait(), self._stop.wait())
                if program.returncode:
                    self._screen.error(
                        f"The {name} has ended (exit code {program.returncode}). It restarts when you save a change."
                    )
            await _wait_for_first(changed.wait(), self._stop.wait())

    def _handle_signal(self) -> None:
        if self._stop.is_set():
            self._programs.stop_now()
            return
        self._screen.info(
            "Stopping: the worker finishes its tasks, then the manager stops. Press Ctrl-C again to stop at once."
        )
        self._stop.set()


async def _wait_for_first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until the first of these is done, and cancel the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await _cancel(tasks)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
