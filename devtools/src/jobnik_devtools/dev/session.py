"""The order of things: the manager first and last, worker and seed in between, each again at every change."""

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import httpx2
from jobnik_sdk.testing.process import manager_command

from jobnik_devtools.dev.changes import Changes
from jobnik_devtools.dev.places import HOST, Places
from jobnik_devtools.dev.programs import Programs
from jobnik_devtools.dev.screen import Screen

_POLL_SECONDS: Final = 0.05
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """One `make dev`, from its start to Ctrl-C."""

    def __init__(self, places: Places, screen: Screen) -> None:
        self._places = places
        self._screen = screen
        self._programs = Programs(places.project, screen)
        self._stop = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Run until a signal or the manager's end, and return the exit code; a second signal ends everything at once.

        Raises:
            ConfigurationError: a port is taken, or no manager is installed.
        """
        places = self._places
        places.check_ports()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._answer_signal)
        changes = Changes(places.project, places.seed, self._screen)
        watching = asyncio.create_task(changes.watch())
        serve = [manager_command(), "serve", "--host", HOST, "--port", str(places.port), "--data-dir", str(places.data)]
        # In haste, too, it ends by itself: it has a PostgreSQL to stop.
        async with self._programs.running("manager", serve, {}, in_haste=signal.SIGTERM) as manager:
            guarding = asyncio.create_task(self._guard(manager))
            await _first_of(self._until_live(), self._stop.wait())
            if not self._stop.is_set():
                self._screen.welcome(places)
                await asyncio.gather(self._keep_worker(changes.worker), self._keep_seed(changes.seed))
        await guarding
        await _give_up([watching])
        self._screen.say("Stopped: nothing is left running.")
        return self._code

    async def _guard(self, manager: Process) -> None:
        """End everything when the manager ends, without which nothing works."""
        code = await manager.wait()
        if not self._stop.is_set():
            self._screen.trouble(f"The manager has ended (exit code {code}): its lines above say why.")
            self._code = 1
            self._stop.set()

    async def _until_live(self) -> None:
        async with httpx2.AsyncClient(base_url=self._places.manager, trust_env=False) as client:
            while True:
                with suppress(httpx2.TransportError):
                    if (await client.get("/liveness")).is_success:
                        return
                await asyncio.sleep(_POLL_SECONDS)

    async def _keep_worker(self, changed: asyncio.Event) -> None:
        command = [sys.executable, "-m", self._places.package]
        await self._keep("worker", command, {"PROBE_HOST": HOST, "PROBE_PORT": str(self._places.probe_port)}, changed)

    async def _keep_seed(self, changed: asyncio.Event) -> None:
        if not self._places.seed.exists():
            await _first_of(changed.wait(), self._stop.wait())
        await self._keep("seed", [sys.executable, str(self._places.seed)], {}, changed)

    async def _keep(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], changed: asyncio.Event
    ) -> None:
        """Run a program for the manager, and again whenever something has changed, until everything stops."""
        environment = {"JOBNIK_BASE_URL": self._places.manager, **environment}
        while not self._stop.is_set():
            changed.clear()
            async with self._programs.running(name, command, environment) as program:
                await _first_of(program.wait(), changed.wait(), self._stop.wait())
                if program.returncode:
                    self._screen.trouble(
                        f"The {name} has ended (exit code {program.returncode}). Save a change to start it again."
                    )
            await _first_of(changed.wait(), self._stop.wait())

    def _answer_signal(self) -> None:
        if self._stop.is_set():
            self._programs.hurry()
            return
        self._screen.say("Stopping: the worker finishes its tasks, then the manager ends. Ctrl-C again is quicker.")
        self._stop.set()


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of these, and give up the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await _give_up(tasks)


async def _give_up(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
