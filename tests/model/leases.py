"""Part B of the protocol: requests of workers with leases; and events without a request."""

from collections import defaultdict
from collections.abc import Sequence

from tests.model.entities import MINIMAL, Answer, AnyOrder, Attempt, Body, Json, OneOf, Task, Time, Wording
from tests.model.lifecycle import MANAGER, End, Lifecycle
from tests.model.stored import ANY_MESSAGE, refused

INVALID = refused(400, "VALIDATION_ERROR")
OUTCOMES = ("COMPLETED", "FAILED", "RELEASED", "SNOOZED")
NOTHING = Answer(204, None)
"""The answer to an event without a request."""


class Leases(Lifecycle):
    """A manager and the workers that hold its leases."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, Body] = {}
        """Workers that have sent a heartbeat, as they are answered."""
        self._heartbeats = 0

    def claim_tasks(self, stage_type: str, body: Body, *, minimal: bool) -> Answer:
        """Claim up to ``limit`` tasks, each with its stage and its job; a minimal answer has these once."""
        limit = body.get("limit", 1)
        if not 1 <= limit <= 500:
            return INVALID
        claimed = self._claim(stage_type, limit, body["workerId"], body["leaseSeconds"])
        if not minimal:
            return Answer(200, {"tasks": [task.claimed_json(task.tries[-1]) for task in claimed]})
        tasks = [task.minimal_json(task.tries[-1]) for task in claimed]
        stages = dict.fromkeys(task.stage.id for task in claimed)
        return Answer(200, {"tasks": tasks, "stages": [self.stages[name].context_json() for name in stages]}, MINIMAL)

    # Reports

    def settle_tasks(self, body: Body, *, minimal: bool) -> Answer:
        """Each report is accepted or refused separately. A repeated report counts once."""
        reports: list[Json] = body["results"]
        if not reports:
            return INVALID
        before = {name: task.status for name, task in self.tasks.items()}
        accepted: dict[tuple[Json, Json], str | None] = {}
        for report in reports:
            if _is_report(report) and (key := (report["taskId"], report["leaseId"])) not in accepted:
                accepted[key] = self._accept(body["workerId"], report)
        verdicts = [self._verdict(report, accepted, before) for report in reports]
        if not minimal:
            return Answer(200, {"results": verdicts})
        refusals = [verdict | {"index": place} for place, verdict in enumerate(verdicts) if not verdict["accepted"]]
        return Answer(200, {"accepted": len(verdicts) - len(refusals), "refused": refusals}, MINIMAL)

    def _accept(self, worker: str, report: Body) -> str | None:
        """The status of the task after this report, or after the same report before; None if it is refused."""
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

    def _verdict(self, report: Body, accepted: dict[tuple[Json, Json], str | None], before: dict[str, str]) -> Body:
        verdict: Body = {"taskId": report["taskId"], "leaseId": report["leaseId"], "accepted": False, "status": None}
        if not _is_report(report):
            return verdict | {"code": "VALIDATION_ERROR", "message": ANY_MESSAGE}
        task = self.tasks.get(report["taskId"])
        if task is None:
            return verdict | {"code": "TASK_NOT_FOUND", "message": ANY_MESSAGE}
        if status := accepted[report["taskId"], report["leaseId"]]:
            return verdict | {"accepted": True, "status": status}
        # Another report in the request may have been processed before this one.
        status = OneOf((before[task.id], task.status))
        return verdict | {"status": status, "code": "LEASE_LOST", "message": ANY_MESSAGE}

    # Heartbeats

    def heartbeat(self, worker: str, body: Body) -> Answer:
        """Renew the leases of the worker, store its progress, and answer with the manager's orders."""
        self._heartbeats += 1
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
            "seenTime": Time(f"heartbeat {self._heartbeats} of {worker}", unlike=known.get("seenTime")),
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
        """Renew the lease to its full length, but not beyond the time limit of the task."""
        if progress:
            task.progress = {"message": "", "etaSeconds": None} | progress
        if attempt.expires is not attempt.deadline:
            attempt.renewals += 1
            name = f"end {attempt.renewals} of the lease of {task.id} by claim {attempt.lease.claim}"
            attempt.expires = Time(name, unlike=attempt.expires)

    def order_worker(self, worker: str, body: Body) -> Answer:
        """Order a worker to drain, or not to. It receives the order with its next heartbeat."""
        if worker not in self.workers:
            return refused(404, "WORKER_NOT_FOUND")
        self.workers[worker]["drainWanted"] = body["drain"]
        return Answer(200, self.workers[worker])

    # Time

    def end_leases(self, tasks: Sequence[str], *, timed_out: bool = False) -> Answer:
        """Fail the attempts at these tasks: their leases have expired, or their time limits have passed."""
        for name in tasks:
            task = self.tasks[name]
            attempt = task.at_work
            assert attempt, f"{name} is not in progress"
            if timed_out:
                outcome, kind = "TIMED_OUT", "TimedOut"
            else:
                outcome, kind = "EXPIRED", "LeaseExpired" if attempt.worker else "Stale"
            self._settle(task, attempt, End(outcome, MANAGER, error={"type": kind, "message": Wording()}))
        return NOTHING

    def wake(self, tasks: Sequence[str]) -> Answer:
        """Let these delayed tasks be claimed, at the places that they would have without a delay."""
        for name in tasks:
            self.tasks[name].delay = None
            self._queue(self.tasks[name])
        return NOTHING


def _end_of(worker: str, report: Body) -> End:
    """The end of an attempt by a report. Fields that do not belong to its outcome are ignored."""
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
    """Whether it is a valid report. Only the mistakes that the requests of this model make are considered."""
    return report.get("outcome") in OUTCOMES and report.get("delaySeconds", 0) >= 0
