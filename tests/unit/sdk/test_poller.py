"""Pollers: whether they count as polling, which the liveness probe checks, and what they do when a lease is lost."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from jobnik_sdk import Completed, Empty, Handler, Released, StageType, TaskContext
from jobnik_sdk.execution.access import WorkerAccess
from jobnik_sdk.model.definitions import EMPTY, AnyStageType
from jobnik_sdk.worker import poller as poller_module
from jobnik_sdk.worker.part_a_source import PartATaskSource
from jobnik_sdk.worker.poller import Poller, PollerDependencies
from jobnik_sdk.worker.task_source import Assignment, ReportResult, TaskReport
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.unit.sdk.script import ScriptedManager


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Return the current time in seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the poller."""
    clock = Clock()
    monkeypatch.setattr(poller_module, "time", clock)
    return clock


def _poller_that_may_not_claim(manager: ScriptedManager) -> Poller:
    async def do_nothing(_task: Empty, _context: TaskContext) -> None:
        pass

    handler = Handler(StageType("pictures", task=Empty), do_nothing)
    dependencies = PollerDependencies(
        source=PartATaskSource(manager.client),
        poll_delays=(timedelta(seconds=1), timedelta(seconds=1)),
        may_claim=lambda: False,
        on_contact=lambda: None,
        middleware=(),
        emit=None,
        access=WorkerAccess(manager.client),
    )
    return Poller(handler, dependencies)


async def test_a_poller_without_claims_is_not_polling(manager: ScriptedManager, clock: Clock) -> None:
    """A poller is stuck if its last claim is longer ago than its longest delay plus a minute."""
    poller = _poller_that_may_not_claim(manager)
    assert poller.polling
    clock.now += 62
    assert not poller.polling


async def test_a_poller_that_may_not_claim_is_polling(manager: ScriptedManager, clock: Clock) -> None:
    """A worker that claims nothing because its manager is away must not be restarted."""
    poller = _poller_that_may_not_claim(manager)
    clock.now += 62
    running = asyncio.create_task(poller.run())
    async with asyncio.timeout(1):
        while not poller.polling:  # noqa: ASYNC110 another thread reads it, so there is no signal to wait for
            await asyncio.sleep(0)
    poller.stop()
    await running


class OneTask:
    """A source of one task, whose report is never answered."""

    long_polls = True
    held_back = 0

    def __init__(self, task: Assignment[Empty, Empty]) -> None:
        self._tasks = [task]
        self.reports: asyncio.Queue[TaskReport] = asyncio.Queue()

    async def claim(self, stage_type: AnyStageType, limit: int) -> Sequence[Assignment[Any, Any]]:  # noqa: ARG002 a protocol
        """Return the task; later, wait until the claim is cancelled."""
        if self._tasks:
            return [self._tasks.pop()]
        await asyncio.Event().wait()
        return []

    def submit(self, report: TaskReport, on_result: Callable[[ReportResult], None]) -> None:  # noqa: ARG002 a protocol
        """Store the report."""
        self.reports.put_nowait(report)

    async def deregister(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("runs", [True, False])
async def test_a_lease_is_lost_only_while_its_handler_runs(manager: ScriptedManager, *, runs: bool) -> None:
    """Afterwards, the manager ends the lease when it receives the report, maybe before the worker has the answer."""
    started = asyncio.Event()
    name = f"lost-{runs}"

    async def handle(_task: Empty, _context: TaskContext) -> None:
        started.set()
        if runs:
            await asyncio.Event().wait()

    stage: dict[str, Any] = {"id": str(UUID(int=2)), "type": name, "order": 1, "data": {}, "userMetadata": {}}
    task = Assignment[Empty, Empty](
        id=UUID(int=1),
        stage_id="2",
        attempts=0,
        max_attempts=3,
        data=EMPTY,
        metadata=EMPTY,
        lease_id=7,
        stage=stage,
    )
    source = OneTask(task)
    dependencies = PollerDependencies(
        source=source,
        poll_delays=(timedelta(seconds=1), timedelta(seconds=1)),
        may_claim=lambda: True,
        on_contact=lambda: None,
        middleware=(),
        emit=None,
        access=WorkerAccess(manager.client),
    )
    poller = Poller(Handler(StageType(name, task=Empty), handle), dependencies)
    running = asyncio.create_task(poller.run())
    await started.wait()
    outcome = None if runs else (await source.reports.get()).outcome
    with capture_logs() as logs:
        poller.lose([7])
        poller.lose([7])
    assert [line["event"] for line in logs] == ["lease lost"] * runs
    assert REGISTRY.get_sample_value("jobnik_sdk_worker_leases_lost_total", {"stage_type": name}) == runs
    outcome = outcome or (await source.reports.get()).outcome
    assert outcome == (Released("lease lost") if runs else Completed(None))
    poller.stop()
    await running
