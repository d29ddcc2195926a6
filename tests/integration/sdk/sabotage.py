"""Runs a worker with saboteurs beside neighbours, and checks how every attempt ends.

As a program, it does so for some minutes, with a manager of its own:

    python -m tests.integration.sdk.sabotage --minutes 10 --rate 1

It starts a round, that is a saboteur of each kind in each of its styles, --rate times a second. If the machine is too
slow for that, at most --rounds are under way at once, and the output shows the rate that was reached. Saboteurs that
end their process have a limit of their own, --deadly-rounds: such a round takes seven seconds, until the handlers that
ignore their cancellation are killed.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from jobnik_sdk import HandlerStyle, JobnikClient, JobType, NewStage, NewTask, Producer, Stage
from reference_manager.embedded import EmbeddedPostgres
from rich.console import Console

from tests.integration.sdk.saboteurs import DEADLY, DEADLY_ROUNDS, SABOTEURS, Order, Wait, neighbours, sabotages
from tests.support.processes import descendants
from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess

NEIGHBOURS: Final = {HandlerStyle.ASYNC: 120, HandlerStyle.THREAD: 78, HandlerStyle.PROCESS: 2}
"""The number of neighbours of each style: as many as the worker has slots for."""
_console: Final = Console(highlight=False)
_ROOT: Final = Path(__file__).parents[3]
_FINAL: Final = {"COMPLETED", "FAILED", "ABORTED"}
_MAX_GROWTH: Final = {"memory_mb": 20.0, "files": 20, "threads": 10, "processes": 10}
"""How much more a worker may use at the end of a long run than after its first quarter. A leak of one object for each
sabotage would exceed it within a minute."""


class Sample(NamedTuple):
    """What a worker uses at one moment."""

    memory_mb: float
    files: int
    threads: int
    processes: int
    """Its children and their descendants."""


class _Pace(NamedTuple):
    """The saboteurs that start together in a round."""

    name: str
    kinds: Collection[str]
    styles: Sequence[HandlerStyle]


_PACES: Final = (
    _Pace("in the worker's process", SABOTEURS, (HandlerStyle.ASYNC, HandlerStyle.THREAD)),
    _Pace("in a process that survives", SABOTEURS.keys() - DEADLY, (HandlerStyle.PROCESS,)),
    _Pace("in a process that ends", DEADLY, (HandlerStyle.PROCESS,)),
)


class SabotagedWorker:
    """A worker of `saboteurs`, and its manager.

    Args:
        client: A client of the manager.
        errors: Receives what the worker writes to standard error.
        prefix: A command that runs the worker.
        deadly_rounds: How many rounds of saboteurs that end their process the worker runs at once.
    """

    def __init__(
        self, client: JobnikClient, errors: Path, prefix: Sequence[str] = (), deadly_rounds: int = DEADLY_ROUNDS
    ) -> None:
        self._client = client
        self._producer = Producer(client)
        self._name = secrets.token_hex(8)
        self._errors = errors
        program = ("-m", "tests.integration.sdk.saboteurs", self._name, str(deadly_rounds))
        self._command = [*prefix, sys.executable, *program]
        self.events: Counter[str] = Counter()
        """The number of log lines by event."""
        self._changed = asyncio.Event()
        self.torn: list[bytes] = []
        """Log lines that are not one JSON object."""

    async def __aenter__(self) -> Self:
        environment = {"JOBNIK_BASE_URL": self._client.base_url, "PROBE_HOST": "127.0.0.1", "PROBE_PORT": "0"}
        # Through a pipe, as in a container: a long line takes several writes, which could mix.
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 our own program
                self._command,
                cwd=_ROOT,
                env=os.environ | environment | {"PYTHONPATH": "."},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._loop = asyncio.get_running_loop()
        self._reading = asyncio.create_task(asyncio.to_thread(self._read))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """Kill the worker; idempotent."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        await self._reading

    async def stop(self, pid: int | None = None) -> int:
        """Stop the worker as a cluster does, and return its exit code.

        Args:
            pid: The process that is told to stop; None: the one that this object has started.
        """
        os.kill(self._process.pid if pid is None else pid, signal.SIGTERM)
        return await asyncio.to_thread(self._process.wait)

    async def start_neighbours(self, seconds: float) -> Mapping[HandlerStyle, Stage[Any, Any]]:
        """Start 200 tasks that wait, and return their stages once all of them are in progress."""
        stages: dict[HandlerStyle, Stage[Any, Any]] = {}
        for style, number in NEIGHBOURS.items():
            kind = neighbours(self._name, style)
            stage = stages[style] = await self._producer.create_stage(await self._job(), kind)
            await self._producer.create_tasks(stage, kind, [NewTask(Wait(seconds=seconds), max_attempts=1)] * number)
        for stage in stages.values():
            await self._wait_for(stage, {"IN_PROGRESS"})
        return stages

    async def undisturbed(self, stages: Mapping[HandlerStyle, Stage[Any, Any]]) -> Sequence[str]:
        """Wait until the neighbours have ended; describe each that did not complete at its first attempt."""
        return [
            f"neighbour as {style}: {task['status']} {task.get('error')}"
            for style, stage in stages.items()
            for task in await self._wait_for(stage, _FINAL)
            if task["status"] != "COMPLETED" or await self._outcomes(task) != ["COMPLETED"]
        ]

    def freeze(self) -> None:
        """Stop the worker's process with SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    async def wait_for_log(self, event: str, times: int = 1) -> None:
        """Wait until there are that many log lines with this event."""
        async with asyncio.timeout(30):
            while self.events[event] < times:
                self._changed.clear()
                await self._changed.wait()

    async def start(self, do: str, style: HandlerStyle) -> None:
        """Create a task for one kind of sabotage, without a time limit."""
        await self._create_saboteur(do, style, seconds=None)

    async def sabotage(self, *styles: HandlerStyle, kinds: Collection[str] = SABOTEURS) -> Sequence[str]:
        """Create a task for each of these kinds of sabotage in these styles, and wait for them.

        Return a description of each that did not end as it must, at its first attempt.
        """
        stages = [
            (do, await self._create_saboteur(do, style, saboteur.timeout_seconds))
            for do, saboteur in SABOTEURS.items()
            for style in saboteur.styles
            if style in styles and do in kinds
        ]
        wrong: list[str] = []
        for do, stage in stages:
            (task,) = await self._wait_for(stage, _FINAL)
            ends = SABOTEURS[do].ends
            error: dict[str, Any] = task.get("error") or {}
            outcomes = await self._outcomes(task)
            if len(outcomes) != 1 or (error.get("type") not in ends if ends else task["status"] != "COMPLETED"):
                wrong.append(f"{do} as {stage.type}: {task['status']} {error}, attempts {outcomes}")
        return wrong

    def sample(self) -> Sample:
        """Return what the worker uses now."""
        proc = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        files = len(list((proc / "fd").iterdir()))
        return Sample(int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"]), len(self.processes()))

    def processes(self) -> Sequence[int]:
        """Return the process ids of the worker's descendants."""
        return descendants(self._process.pid)

    def states(self) -> Sequence[tuple[str, str]]:
        """Return the name and the state of each of the worker's descendants; the state of a zombie is Z."""
        found: list[tuple[str, str]] = []
        for pid in self.processes():
            with suppress(OSError):  # it has just ended
                name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
                found.append((name, rest.split()[0]))
        return found

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    self.events[json.loads(line)["event"]] += 1
                except ValueError:
                    self.torn.append(line[:200])
                self._loop.call_soon_threadsafe(self._changed.set)

    async def _create_saboteur(self, do: str, style: HandlerStyle, seconds: int | None) -> Stage[Any, Any]:
        # Each has a job of its own, because a failed task ends its job.
        kind = sabotages(self._name, style, deadly=do in DEADLY and style is HandlerStyle.PROCESS)
        timeout = None if seconds is None else timedelta(seconds=seconds)
        task = NewTask(Order(do=do), max_attempts=1, timeout=timeout)
        created = await self._producer.create_job(JobType("sabotage"), stages=[NewStage(kind, [task])])
        (stage,) = created.stages
        return stage

    async def _job(self) -> Any:  # noqa: ANN401 a job of any type
        return await self._producer.create_job(JobType("sabotage"))

    async def _wait_for(self, stage: Stage[Any, Any], statuses: set[str]) -> Sequence[Any]:
        async with asyncio.timeout(120):
            while True:
                tasks: list[Any] = (await self._client.request("GET", f"/v1/stages/{stage.id}/tasks")).json()
                if all(task["status"] in statuses for task in tasks):
                    return tasks
                await asyncio.sleep(0.1)

    async def _outcomes(self, task: dict[str, Any]) -> Sequence[str]:
        """Return the outcomes of the attempts at a task."""
        attempts: list[Any] = (await self._client.request("GET", f"/v1/tasks/{task['id']}/attempts")).json()
        return [attempt["outcome"] for attempt in attempts]


def growth(samples: Sequence[Sample]) -> Mapping[str, float]:
    """Return how much more a worker used in the last quarter of its samples than in the second, by the medians."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[3 * quarter :]
    return {
        name: statistics.median(getattr(sample, name) for sample in late)
        - statistics.median(getattr(sample, name) for sample in early)
        for name in Sample._fields
    }


async def _repeat(
    worker: SabotagedWorker, end: float, pace: _Pace, *, rate: float, rounds_at_once: int
) -> Sequence[str]:
    """Start rounds at a rate per second, without waiting for earlier ones unless too many are under way."""
    wrong: list[str] = []
    free = asyncio.Semaphore(rounds_at_once)

    async def play() -> None:
        try:
            wrong.extend(await worker.sabotage(*pace.styles, kinds=pace.kinds))
        finally:
            free.release()

    begun, rounds = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < end and not wrong:
            await free.acquire()
            group.create_task(play())
            rounds += 1
            # Not from the start of this round: a round that had to wait is made up for.
            await asyncio.sleep(max(0.0, begun + rounds / rate - time.monotonic()))
        seconds = time.monotonic() - begun
    number = sum(style in SABOTEURS[do].styles for do in pace.kinds for style in pace.styles)
    _console.print(f"{pace.name}: {rounds} rounds of {number} saboteurs, {rounds / seconds:.2f} a second")
    return wrong


async def _measure(worker: SabotagedWorker, end: float) -> Sequence[Sample]:
    samples: list[Sample] = []
    while time.monotonic() < end:
        await asyncio.sleep(1)
        samples.append(worker.sample())
        if len(samples) % 30 == 0:
            _console.print(f"{end - time.monotonic():>4.0f} s left, {samples[-1]}")
    return samples


async def _soak(url: str, errors: Path, arguments: argparse.Namespace) -> Sequence[str]:
    """Sabotage a worker for some minutes, and describe what went wrong."""
    minutes, deadly = arguments.minutes, arguments.deadly_rounds
    async with (
        JobnikClient(url) as client,
        SabotagedWorker(client, errors, deadly_rounds=deadly) as worker,
    ):
        undisturbed = await worker.start_neighbours(60 * minutes)
        end = time.monotonic() + 60 * minutes
        samples, wrong = await asyncio.gather(
            _measure(worker, end),
            asyncio.gather(
                *(
                    _repeat(
                        worker,
                        end,
                        pace,
                        rate=arguments.rate,
                        rounds_at_once=deadly if pace.kinds is DEADLY else arguments.rounds,
                    )
                    for pace in _PACES
                )
            ),
        )
        findings = [finding for findings in wrong for finding in findings]
        findings += await worker.undisturbed(undisturbed)
        code = await worker.stop()
    findings += [f"torn log line: {line!r}" for line in worker.torn]
    grown = growth(samples)
    findings += [f"{name} grew by {grown[name]:g}" for name, limit in _MAX_GROWTH.items() if grown[name] > limit]
    _console.print(f"growth: {grown}, log: {dict(worker.events)}, exit code: {code}")
    return [*findings, *([f"exit code {code}"] if code else [])]


def main() -> int:
    """Run, and print what went wrong; return 1 if anything did."""
    parser = argparse.ArgumentParser(description="Sabotage a worker, and check that only saboteurs pay for it.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=1.0, help="how many rounds start a second (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds may be under way (default: 5)")
    parser.add_argument(
        "--deadly-rounds",
        type=int,
        default=DEADLY_ROUNDS,
        help=f"the same for saboteurs that end their process (default: {DEADLY_ROUNDS})",
    )
    arguments = parser.parse_args()
    with (
        temporary_data_folder() as folder,
        EmbeddedPostgres(folder, durable=False) as server,
        ManagerProcess("--database-url", server.url) as manager,
        tempfile.NamedTemporaryFile(suffix=".log", delete=False) as errors,
    ):
        findings = asyncio.run(_soak(manager.url, Path(errors.name), arguments))
    _console.print("\n".join(findings) or "nothing was lost, and nothing grew")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
