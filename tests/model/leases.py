"""What workers ask for that hold leases, and what comes with time: part B of the protocol."""

from collections import defaultdict
from collections.abc import Sequence

from tests.model.entities import MINIMAL, Answer, AnyOrder, Attempt, Body, Json, OneOf, Task, Time, Wording
from tests.model.lifecycle import MANAGER, End, Lifecycle
from tests.model.stored import ANY_MESSAGE, refused

INVALID = refused(400, "VALIDATION_ERROR")
OUTCOMES = ("COMPLETED", "FAILED", "RELEASED", "SNOOZED")
NOTHING = Answer(204, None)
"""Of what nobody has asked for."""


class Leases(Lifecycle):
    """A manager and the workers that hold its leases."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, Body] = {}
        """Those that have sent a heartbeat, as they are answered."""
        self._beats = 0

    def claim_tasks(self, stage_type: str, body: Body, *, minimal: bool) -> Answer:
        """As many tasks as are wanted and can be had, each with its stage and its job, or these once for all."""
        limit = body.get("limit", 1)
        if not 1 <= limit <= 500:
            return INVALID
        claimed = self._claim(stage_type, limit, body["workerId"], body["leaseSeconds"])
        if not minimal:
            return Answer(200, {"tasks": [task.claimed_json(task.tries[-1]) for task in claimed]})
        tasks = [task.brief_json(task.tries[-1]) for task in claimed]
        stages = dict.fromkeys(task.stage.id for task in claimed)
        return Answer(200, {"tasks": tasks, "stages": [self.stages[name].context_json() for name in stages]}, MINIMAL)

    # Reports

    def settle_tasks(self, body: Body, *, minimal: bool) -> Answer:
        """Each report is taken or refused for itself; what is said twice counts once."""
        reports: list[Json] = body["results"]
        if not reports:
            return INVALID
        before = {name: task.status for name, task in self.tasks.items()}
        taken: dict[tuple[Json, Json], str | None] = {}
        for report in reports:
            if _is_report(report) and (key := (report["taskId"], report["leaseId"])) not in taken:
                taken[key] = self._take(body["workerId"], report)
        verdicts = [self._verdict(report, taken, before) for report in reports]
        if not minimal:
            return Answer(200, {"results": verdicts})
        turned_away = [verdict | {"index": place} for place, verdict in enumerate(verdicts) if not verdict["accepted"]]
        return Answer(200, {"accepted": len(verdicts) - len(turned_away), "refused": turned_away}, MINIMAL)

    def _take(self, worker: str, report: Body) -> str | None:
        """What the task has become by this report, now or when it was said before; None: it is refused."""
        task = self.tasks.get(report["taskId"])
        attempt = task and self._attempt(task, worker, report["leaseId"])
        if task is None or attempt is None:
            return None
        if attempt is task.at_work:
            self._settle(task, attempt, _end_of(worker, report))
        return attempt.settled

    def _attempt(self, task: Task, worker: str, lease: Json) -> Attempt | None:
        """The worker's attempt under this lease."""
        return next((tried for tried in task.tries if (tried.worker, tried.lease) == (worker, lease)), None)

    def _verdict(self, report: Body, taken: dict[tuple[Json, Json], str | None], before: dict[str, str]) -> Body:
        verdict: Body = {"taskId": report["taskId"], "leaseId": report["leaseId"], "accepted": False, "status": None}
        if not _is_report(report):
            return verdict | {"code": "VALIDATION_ERROR", "message": ANY_MESSAGE}
        task = self.tasks.get(report["taskId"])
        if task is None:
            return verdict | {"code": "TASK_NOT_FOUND", "message": ANY_MESSAGE}
        if status := taken[report["taskId"], report["leaseId"]]:
            return verdict | {"accepted": True, "status": status}
        # Another report of the request may have moved the task by then, or may not.
        status = OneOf((before[task.id], task.status))
        return verdict | {"status": status, "code": "LEASE_LOST", "message": ANY_MESSAGE}

    # Heartbeats

    def heartbeat(self, worker: str, body: Body) -> Answer:
        """Renews the leases that the worker holds, notes its progress, and brings back what it has to know."""
        self._beats += 1
        known = self.workers.get(worker, {})
        self.workers[worker] = {
            "id": worker,
            "stageTypes": body["stageTypes"],
            "host": body.get("host") or known.get("host"),
            "version": body.get("version") or known.get("version"),
            "draining": body.get("draining", False),
            "drainWanted": known.get("drainWanted", False),
            "running": len(body["running"]),
            "startTime": Time(f"start of {worker}"),
            "seenTime": Time(f"heartbeat {self._beats} of {worker}", unlike=known.get("seenTime")),
        }
        orders: dict[str, list[Json]] = defaultdict(list)
        for running in body["running"]:
            task = self.tasks.get(running["taskId"])
            if task and task.stage.status == "ABORTED":
                orders["cancel"].append(running["leaseId"])
            elif task and (attempt := self._attempt(task, worker, running["leaseId"])) and attempt is task.at_work:
                self._renew(task, attempt, running.get("progress"))
            else:
                orders["lost"].append(running["leaseId"])
        lists = {order: AnyOrder(tuple(orders[order])) for order in ("lost", "cancel")}
        return Answer(200, lists | {"drain": self.workers[worker]["drainWanted"]})

    def _renew(self, task: Task, attempt: Attempt, progress: Body | None) -> None:
        """Its lease has its whole length again, though not beyond the task's time limit."""
        if progress:
            task.progress = {"message": "", "etaSeconds": None} | progress
        if attempt.expires is not attempt.deadline:
            attempt.renewals += 1
            name = f"end {attempt.renewals} of the lease of {task.id} by claim {attempt.lease.claim}"
            attempt.expires = Time(name, unlike=attempt.expires)

    def order_worker(self, worker: str, body: Body) -> Answer:
        """Whether it is to drain, which it hears with its next heartbeat."""
        if worker not in self.workers:
            return refused(404, "WORKER_NOT_FOUND")
        self.workers[worker]["drainWanted"] = body["drain"]
        return Answer(200, self.workers[worker])

    # Time

    def end_leases(self, tasks: Sequence[str], *, timed_out: bool = False) -> Answer:
        """The leases of these are over, or their time limits are: the attempts have failed."""
        for name in tasks:
            task = self.tasks[name]
            attempt = task.at_work
            assert attempt, f"{name} is in no worker's hands"
            if timed_out:
                outcome, kind = "TIMED_OUT", "TimedOut"
            else:
                outcome, kind = "EXPIRED", "LeaseExpired" if attempt.worker else "Stale"
            self._settle(task, attempt, End(outcome, MANAGER, error={"type": kind, "message": Wording()}))
        return NOTHING

    def wake(self, tasks: Sequence[str]) -> Answer:
        """The moment of these has come: they are where they would have been without a delay."""
        for name in tasks:
            self.tasks[name].delay = None
            self._queue(self.tasks[name])
        return NOTHING


def _end_of(worker: str, report: Body) -> End:
    """The end that a report tells of; what does not belong to its outcome does not count."""
    outcome, error = report["outcome"], report.get("error")
    return End(
        outcome,
        worker,
        report.get("result") if outcome == "COMPLETED" else None,
        {"message": "", "stack": ""} | error if error and outcome == "FAILED" else None,
        report.get("retryable", True),
        report.get("delaySeconds"),
    )


def _is_report(report: Body) -> bool:
    """Whether it says what a report has to say, as far as it is ever said wrongly here."""
    return report.get("outcome") in OUTCOMES and report.get("delaySeconds", 0) >= 0
