"""Reports of a locked job do not delay the answers to the reports of other jobs in the same request."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx2
import pytest

from tests.support.protocol import Client, branch
from tests.support.sessions import ROW_LOCKS, session, wait_for_blocked_statement, wait_for_lock_waiters

MINIMAL = {"Prefer": "return=minimal"}
LOCKS = {"job's lock": "SELECT pg_advisory_xact_lock(job_key($1))", **ROW_LOCKS}
NEXT_STAGE = "SELECT FROM stages WHERE job_id = $1 AND position = 2 FOR UPDATE"
ACCEPTED = {"accepted": True, "status": "COMPLETED"}
UNDECIDED = {
    "accepted": False,
    "status": None,
    "code": "UNDECIDED",
    "message": "Another session has locked the job, or the database failed: send the report again",
}


async def _claimed(client: Client, stage_type: str, *further: Any) -> tuple[UUID, dict[str, Any]]:  # noqa: ANN401 stages
    """Create a job whose first stage has one task; return the job, and the report that completes the task."""
    job = await client.job(stages=[branch(stage_type, 1), *further])
    path = f"/v1/stages/{stage_type}/tasks/claim"
    (task,) = (await client.http.post(path, json={"workerId": "w"})).json()["tasks"]
    return UUID(job["id"]), {"taskId": task["id"], "leaseId": task["leaseId"], "outcome": "COMPLETED"}


async def _settle(client: Client, *reports: Mapping[str, Any], minimal: bool = False) -> httpx2.Response:
    body = {"workerId": "w", "results": reports}
    return await client.http.post("/v1/tasks/settle", json=body, headers=MINIMAL if minimal else {})


def _ids(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in ("taskId", "leaseId")}


async def test_a_report_of_a_locked_job_is_undecided_and_the_others_count(
    client: Client, shared_database_url: str, stage_type: str
) -> None:
    """This holds for each kind of lock. The undecided report counts when it is sent again."""

    async def check(name: str, lock: str) -> None:
        job, held = await _claimed(client, f"{stage_type} locked {name}")
        _, first = await _claimed(client, f"{stage_type} first {name}")
        _, second = await _claimed(client, f"{stage_type} second {name}")
        invalid = first | {"outcome": "LOST"}
        async with session(shared_database_url) as locker, locker.transaction():
            await locker.execute(lock, job)
            full = await _settle(client, first, held)
            minimal = await _settle(client, held, invalid, second, minimal=True)
            again = await _settle(client, held, first, minimal=True)
        assert full.json() == {"results": [_ids(first) | ACCEPTED, _ids(held) | UNDECIDED]}
        answer = minimal.json()
        assert answer.pop("undecided") == [_ids(held) | UNDECIDED | {"index": 0}]
        assert [(item["index"], item["code"]) for item in answer.pop("refused")] == [(1, "VALIDATION_ERROR")]
        assert answer == {"accepted": 1}
        assert again.json() == {
            "accepted": 1,
            "refused": [],
            "undecided": [_ids(held) | UNDECIDED | {"index": 0}],
        }
        assert (await _settle(client, held, minimal=True)).json() == {"accepted": 1, "refused": []}

    await asyncio.gather(*(check(name, lock) for name, lock in LOCKS.items()))


async def test_a_request_whose_reports_are_all_locked_is_answered_when_the_lock_is_released(
    client: Client, shared_database_url: str, stage_type: str
) -> None:
    """The answer does not come at once with nothing decided, so a client that repeats the request does not spin."""
    job, held = await _claimed(client, stage_type)
    async with session(shared_database_url) as locker:
        async with locker.transaction():
            await locker.execute(LOCKS["job's lock"], job)
            settling = asyncio.create_task(_settle(client, held))
            async with session(shared_database_url) as observer:
                await wait_for_lock_waiters(observer)
            assert not settling.done()
        assert (await settling).json() == {"results": [_ids(held) | ACCEPTED]}


@pytest.mark.parametrize("lock", [*LOCKS.values(), NEXT_STAGE], ids=[*LOCKS, "next stage"])
async def test_a_lease_can_be_renewed_while_its_report_waits(
    client: Client, shared_database_url: str, stage_type: str, lock: str
) -> None:
    """However long the report waits, the attempt does not expire, because nothing holds the lease meanwhile."""
    job, held = await _claimed(client, stage_type, branch("next", 1))
    heartbeat = {"stageTypes": [stage_type], "running": [_ids(held)]}
    expires_at = "SELECT expires_at FROM leases WHERE id = $1"
    async with session(shared_database_url) as locker, session(shared_database_url) as observer:
        async with locker.transaction():
            await locker.execute(lock, job)
            settling = asyncio.create_task(_settle(client, held))
            statement = "complete_tasks" if lock == LOCKS["job's lock"] else "lock_to_settle"
            await wait_for_blocked_statement(observer, statement)
            for _ in range(20):
                before = await observer.fetchval(expires_at, int(held["leaseId"]))
                answer = await client.http.post("/v1/workers/w/heartbeat", json=heartbeat)
                assert answer.json()["lost"] == []
                assert await observer.fetchval(expires_at, int(held["leaseId"])) > before
            assert not settling.done()
        assert (await settling).json() == {"results": [_ids(held) | ACCEPTED]}


async def test_reports_of_many_locked_jobs_leave_connections_for_other_requests(
    client: Client, shared_database_url: str, stage_type: str
) -> None:
    """The waiting reports do not each hold a connection."""
    claimed = [await _claimed(client, f"{stage_type} {number}") for number in range(20)]
    async with session(shared_database_url) as locker, session(shared_database_url) as observer:
        async with locker.transaction():
            for job, _ in claimed:
                await locker.execute(LOCKS["job's lock"], job)
            settling = [asyncio.create_task(_settle(client, held)) for _, held in claimed]
            await wait_for_blocked_statement(observer, "complete_tasks")
            for _ in range(20):
                assert (await client.http.post("/v1/jobs", json={"name": "free", "data": {}})).status_code == 201
            assert not any(one.done() for one in settling)
        for (_, held), one in zip(claimed, settling, strict=True):
            assert (await one).json() == {"results": [_ids(held) | ACCEPTED]}
