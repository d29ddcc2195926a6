"""A worker that implements the protocol without the SDK, which chaos stops and kills at any time.

It writes each event to its journal before the event takes effect. It reports a task even if a heartbeat says that the
lease is lost, so that the manager must refuse the report.

Usage: python -m tests.chaos.worker NAME JOURNAL LEASE_SECONDS STAGE_TYPES URLS, the last two separated by commas.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2

from tests.chaos import plan
from tests.chaos.journal import Event, JournalWriter

SLOTS = 8
"""Maximum number of tasks at a time."""
REPORTS = 6
"""Maximum number of reports per request."""
WAIT, LIMIT = 1.0, 3
"""Seconds that a claim waits, and maximum number of tasks per claim."""
TIMEOUT = 3.0
"""Seconds to wait for a response. Shorter than the manager's lock timeout, so that retries overlap requests."""
PAUSE = 0.05
"""Seconds before a request is repeated."""
BUSY = frozenset({500, 502, 503, 504})


class Worker:
    """The worker.

    Args:
        name: The worker's id.
        writer: The writer of its journal.
        lease: Duration of a lease, in seconds.
        stage_types: The stage types to claim.
        managers: The addresses of the managers. After a failed request, the worker tries the next one.
    """

    def __init__(
        self, name: str, writer: JournalWriter, lease: float, stage_types: Sequence[str], managers: Sequence[str]
    ) -> None:
        self._name = name
        self._writer = writer
        self._lease = lease
        self._stage_types = stage_types
        self._http = httpx2.AsyncClient(timeout=WAIT + TIMEOUT)
        self._managers = cycle(managers)
        self._manager = next(self._managers)
        self._running: dict[int, dict[str, Any]] = {}
        self._reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._slots = asyncio.Semaphore(SLOTS)

    async def run(self) -> None:
        """Run until the process is killed."""
        self._writer.write(Event.WORKER_STARTED)
        async with asyncio.TaskGroup() as group:
            for stage_type in self._stage_types:
                group.create_task(self._claim(stage_type, group))
            group.create_task(self._renew_leases())
            group.create_task(self._report(group))

    async def _claim(self, stage_type: str, group: asyncio.TaskGroup) -> None:
        claim = {"workerId": self._name, "limit": LIMIT, "waitSeconds": WAIT, "leaseSeconds": self._lease}
        while True:
            async with self._slots:
                answer = await self._ask(f"/v1/stages/{stage_type}/tasks/claim", claim)
                for task in answer["tasks"] if answer else ():
                    self._writer.write(Event.CLAIMED, task["id"], task["leaseId"], attempts=task["attempts"])
                    self._running[task["leaseId"]] = task
                    group.create_task(self._attempt(task))

    async def _attempt(self, task: dict[str, Any]) -> None:
        lease, data = task["leaseId"], task["data"]
        async with self._slots:
            self._writer.write(Event.HANDLER_STARTED, task["id"], lease)
            await asyncio.sleep(plan.seconds(data, lease))
            step = plan.step(data, lease)
            self._writer.write(Event.HANDLER_ENDED, task["id"], lease, outcome=step.outcome)
            self._writer.write(Event.REPORTING, task["id"], lease, outcome=step.outcome)
            report: dict[str, Any] = {"taskId": task["id"], "leaseId": lease, "outcome": step.outcome}
            match step.outcome:
                case "COMPLETED":
                    report |= {"result": plan.result(lease)}
                case "FAILED":
                    report |= {"error": plan.error(lease), "retryable": step.retryable, "delaySeconds": step.delay}
                case _:
                    report |= {"delaySeconds": step.delay}
            await self._reports.put(report)

    async def _report(self, group: asyncio.TaskGroup) -> None:
        """Send the reports of each job in separate requests, so that none waits for another job."""
        while True:
            reports = [await self._reports.get()]
            while len(reports) < REPORTS and not self._reports.empty():
                reports.append(self._reports.get_nowait())
            jobs = defaultdict[str, list[dict[str, Any]]](list)
            for report in reports:
                jobs[self._running[report["leaseId"]]["job"]["id"]].append(report)
            for one in jobs.values():
                group.create_task(self._deliver(one))

    async def _deliver(self, reports: Sequence[dict[str, Any]]) -> None:
        """Send reports, and repeat them until a manager responds."""
        repeated = [report for report in reports if plan.is_reported_twice(report["leaseId"])]
        verdicts, *again = await asyncio.gather(*map(self._settle, (reports, repeated) if repeated else (reports,)))
        for verdict in verdicts:
            self._note(Event.VERDICT, verdict)
            del self._running[verdict["leaseId"]]
        for verdict in again[0] if again else ():
            self._note(Event.REPEATED_VERDICT, verdict)

    async def _settle(self, reports: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        verdicts: dict[int, dict[str, Any]] = {}
        while left := [report for report in reports if report["leaseId"] not in verdicts]:
            answer = await self._ask("/v1/tasks/settle", {"workerId": self._name, "results": left})
            results: list[dict[str, Any]] = answer["results"] if answer else []
            verdicts |= {result["leaseId"]: result for result in results if result.get("code") != "UNDECIDED"}
        return [verdicts[report["leaseId"]] for report in reports]

    def _note(self, event: Event, verdict: dict[str, Any]) -> None:
        fields = {name: verdict.get(name) for name in ("accepted", "status", "code")}
        self._writer.write(event, verdict["taskId"], verdict["leaseId"], **fields)

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            running = [
                {"taskId": task["id"], "leaseId": lease, "progress": {"fraction": 0.5, "message": str(lease)}}
                for lease, task in self._running.items()
            ]
            heartbeat = {"stageTypes": self._stage_types, "running": running}
            response = await self._ask(f"/v1/workers/{self._name}/heartbeat", heartbeat)
            for event, field in ((Event.LEASE_LOST, "lost"), (Event.JOB_ABORTED, "cancel")) if response else ():
                for lease in response[field]:
                    self._writer.write(event, lease=lease)

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        """Return the response, or None if the request failed; the next request then goes to another manager."""
        try:
            response = await self._http.post(f"{self._manager}{path}", json=body)
        except httpx2.TransportError:
            response = None
        if response is not None and response.is_success:
            return response.json()
        if response is not None and (response.status_code not in BUSY or "UNKNOWN_ERROR" in response.text):
            self._writer.write(Event.UNEXPECTED_RESPONSE, path=path, status=response.status_code, body=response.text)
        self._manager = next(self._managers)
        await asyncio.sleep(PAUSE)
        return None


def main() -> None:
    """Run until the process is killed."""
    name, journal, lease, stage_types, managers = sys.argv[1:]

    async def work() -> None:
        await Worker(
            name, JournalWriter(Path(journal), name), float(lease), stage_types.split(","), managers.split(",")
        ).run()

    asyncio.run(work())


if __name__ == "__main__":
    main()
