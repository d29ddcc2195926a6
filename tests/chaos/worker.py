"""A worker that knows the protocol and nothing else, to be stopped and killed at any moment.

It writes down what it does before it does it. It does not trust its heartbeats: what it is told to be lost it reports
all the same, so that it is the manager who must refuse it.

Usage: python -m tests.chaos.worker NAME JOURNAL LEASE_SECONDS STAGE_TYPES URLS, the last two with commas.
"""

import asyncio
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2

from tests.chaos import plan
from tests.chaos.journal import Event, Pen

SLOTS = 8
"""Tasks at a time."""
REPORTS = 6
"""The most in one request."""
WAIT, LIMIT = 1.0, 3
"""How long a claim waits, in seconds, and the most tasks that it asks for."""
PATIENCE = 3.0
"""Seconds for an answer: shorter than the manager waits for a lock, so that it is asked again while it still works."""
PAUSE = 0.05
"""Seconds before a request is made again."""
BUSY = frozenset({500, 502, 503, 504})


class Worker:
    """One process.

    Args:
        name: Its id for the manager.
        pen: Its journal.
        lease: Seconds.
        stage_types: What it works on.
        managers: The addresses of the managers: whichever answers is asked.
    """

    def __init__(self, name: str, pen: Pen, lease: float, stage_types: Sequence[str], managers: Sequence[str]) -> None:
        self._name = name
        self._pen = pen
        self._lease = lease
        self._stage_types = stage_types
        self._http = httpx2.AsyncClient(timeout=WAIT + PATIENCE)
        self._managers = cycle(managers)
        self._manager = next(self._managers)
        self._running: dict[int, dict[str, Any]] = {}
        self._reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._slots = asyncio.Semaphore(SLOTS)

    async def run(self) -> None:
        """Work until killed."""
        self._pen.write(Event.HIRED)
        async with asyncio.TaskGroup() as group:
            for stage_type in self._stage_types:
                group.create_task(self._claim(stage_type, group))
            group.create_task(self._keep_leases())
            for _ in range(2):
                group.create_task(self._report())

    async def _claim(self, stage_type: str, group: asyncio.TaskGroup) -> None:
        wish = {"workerId": self._name, "limit": LIMIT, "waitSeconds": WAIT, "leaseSeconds": self._lease}
        while True:
            async with self._slots:
                answer = await self._ask(f"/v1/stages/{stage_type}/tasks/claim", wish)
                for task in answer["tasks"] if answer else ():
                    self._pen.write(Event.CLAIMED, task["id"], task["leaseId"], attempts=task["attempts"])
                    self._running[task["leaseId"]] = task
                    group.create_task(self._attempt(task))

    async def _attempt(self, task: dict[str, Any]) -> None:
        lease, data = task["leaseId"], task["data"]
        async with self._slots:
            self._pen.write(Event.BEGUN, task["id"], lease)
            await asyncio.sleep(plan.seconds(data, lease))
            step = plan.step(data, lease)
            self._pen.write(Event.DONE, task["id"], lease, outcome=step.outcome)
            self._pen.write(Event.SETTLING, task["id"], lease, outcome=step.outcome)
            report: dict[str, Any] = {"taskId": task["id"], "leaseId": lease, "outcome": step.outcome}
            match step.outcome:
                case "COMPLETED":
                    report |= {"result": plan.result(lease)}
                case "FAILED":
                    report |= {"error": plan.error(lease), "retryable": step.retryable, "delaySeconds": step.delay}
                case _:
                    report |= {"delaySeconds": step.delay}
            await self._reports.put(report)

    async def _report(self) -> None:
        """Report until the manager has decided."""
        while True:
            reports = [await self._reports.get()]
            while len(reports) < REPORTS and not self._reports.empty():
                reports.append(self._reports.get_nowait())
            repeated = [report for report in reports if plan.is_said_twice(report["leaseId"])]
            verdicts, *again = await asyncio.gather(*map(self._settle, (reports, repeated) if repeated else (reports,)))
            for verdict in verdicts:
                self._note(Event.ANSWERED, verdict)
                del self._running[verdict["leaseId"]]
            for verdict in again[0] if again else ():
                self._note(Event.REPEATED, verdict)

    async def _settle(self, reports: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        while (answer := await self._ask("/v1/tasks/settle", {"workerId": self._name, "results": reports})) is None:
            pass
        return answer["results"]

    def _note(self, event: Event, verdict: dict[str, Any]) -> None:
        told = {name: verdict.get(name) for name in ("accepted", "status", "code")}
        self._pen.write(event, verdict["taskId"], verdict["leaseId"], **told)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            running = [
                {"taskId": task["id"], "leaseId": lease, "progress": {"fraction": 0.5, "message": str(lease)}}
                for lease, task in self._running.items()
            ]
            about = {"stageTypes": self._stage_types, "running": running}
            orders = await self._ask(f"/v1/workers/{self._name}/heartbeat", about)
            for event, told in ((Event.LOST, "lost"), (Event.CANCELLED, "cancel")) if orders else ():
                for lease in orders[told]:
                    self._pen.write(event, lease=lease)

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
        """The answer; None where there is none: the next request goes to another manager."""
        try:
            response = await self._http.post(f"{self._manager}{path}", json=body)
        except httpx2.TransportError:
            response = None
        if response is not None and response.is_success:
            return response.json()
        if response is not None and (response.status_code not in BUSY or "UNKNOWN_ERROR" in response.text):
            self._pen.write(Event.STRANGE, path=path, status=response.status_code, body=response.text)
        self._manager = next(self._managers)
        await asyncio.sleep(PAUSE)
        return None


def main() -> None:
    """Work until killed."""
    name, journal, lease, stage_types, managers = sys.argv[1:]

    async def work() -> None:
        await Worker(name, Pen(Path(journal), name), float(lease), stage_types.split(","), managers.split(",")).run()

    asyncio.run(work())


if __name__ == "__main__":
    main()
