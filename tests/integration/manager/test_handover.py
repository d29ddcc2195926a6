"""A new task goes to a claim that waits at the same manager, in the transaction that makes the task claimable."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from reference_manager.domain.commands import NO_TRACE, Claim, NewJob, NewStage, NewTasks, Report
from reference_manager.domain.states import JobStatus, Outcome, Priority
from reference_manager.engine.dispatch.claims import ClaimBatcher, Claimed
from reference_manager.engine.engine import Engine
from reference_manager.engine.errors import InFiniteStateError, KeyReusedError
from reference_manager.store.errors import DatabaseError
from reference_manager.store.lock_waits import NO_WAIT
from reference_manager.store.pool import Database, sql

from tests.support.protocol import Client, branch
from tests.support.sessions import job_of, wait_for_lock_waiters
from tests.support.worker import LeasedWorker

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def engine(database: Database) -> AsyncGenerator[Engine]:
    """An engine without background tasks: nothing but a handover or its own notifications serves a waiting claim."""
    engine = Engine(database, stale_after=MINUTE)
    yield engine
    engine.queue.close()


def empty_tasks(number: int) -> NewTasks:
    """Return tasks without data."""
    return NewTasks(number, f"[{','.join(['{}'] * number)}]", NO_TRACE)


async def new_job(engine: Engine, priority: Priority = Priority.MEDIUM, *, tasks: int = 1) -> dict[str, Any]:
    """Create a job whose stages have the types "first" and "second"."""
    stages = [
        (NewStage(name, "{}", "{}", start_as_waiting=False, trace=NO_TRACE), empty_tasks(tasks))
        for name in ("first", "second")
    ]
    return json.loads((await engine.jobs.create(NewJob("a job", "{}", priority, "{}", NO_TRACE, stages=stages))).body)


async def waiting(engine: Engine, stage_type: str = "first", limit: int = 1) -> asyncio.Future[Sequence[Claimed]]:
    """Return a claim that has found no task and waits."""
    claim = engine.queue.claim(stage_type, Claim("worker", limit, MINUTE, wait=MINUTE))
    assert await engine.queue.claim(stage_type) == ()
    return claim


async def report(engine: Engine, claimed: Sequence[Claimed], outcome: Outcome) -> None:
    """Report claimed tasks."""
    pairs = zip(claimed[0].task_ids, claimed[0].lease_ids, strict=True)
    await engine.queue.settle([Report(task, lease, "worker", outcome, retryable=True) for task, lease in pairs])


async def same_transaction(database: Database, claimed: Sequence[Claimed], what: str) -> bool:
    """Return whether a lease was written in the transaction that wrote the newest row of another table."""
    async with database.connection() as connection:
        return await connection.fetchval(
            f"SELECT (SELECT xmin FROM leases WHERE id = $1) = (SELECT xmin FROM {what})",  # noqa: S608 - of the tests
            claimed[0].lease_ids[0],
        )


async def test_every_way_to_make_a_task_claimable_hands_it_over(engine: Engine, database: Database) -> None:
    """A creation, a retry, a release, the end of the previous stage and a resumed job serve the claim that waits."""
    newest_change = "history WHERE target = 'PENDING' ORDER BY id DESC LIMIT 1"
    newest_attempt = "attempts ORDER BY lease_id DESC LIMIT 1"
    claim = await waiting(engine)
    job = await new_job(engine)
    assert await same_transaction(database, await claim, "jobs")

    for outcome in (Outcome.FAILED, Outcome.RELEASED):
        held, claim = await claim, await waiting(engine)
        await report(engine, held, outcome)
        assert await same_transaction(database, await claim, newest_attempt)

    held, claim = await claim, await waiting(engine, "second")
    await report(engine, held, Outcome.COMPLETED)
    assert await same_transaction(database, await claim, newest_change)

    claim = await waiting(engine, "second")
    added = empty_tasks(1)
    await engine.tasks.add_minimal(UUID(job["stages"][1]["id"]), added)
    assert await same_transaction(database, await claim, "tasks ORDER BY seq DESC LIMIT 1")

    await engine.jobs.set_status(UUID(job["id"]), JobStatus.PAUSED)
    await engine.tasks.add_minimal(UUID(job["stages"][1]["id"]), added)
    claim = await waiting(engine, "second")
    await engine.jobs.set_status(UUID(job["id"]), JobStatus.PENDING)
    assert await same_transaction(database, await claim, newest_change)


@pytest.mark.parametrize(("task", "table"), [("delayed tasks", "delayed_tasks"), ("lease sweeper", "leases")])
async def test_maintenance_hands_tasks_over(engine: Engine, database: Database, task: str, table: str) -> None:
    """A task whose delay or lease has ended goes to the claim that waits, in the transaction that ends it."""
    await new_job(engine)
    held = await engine.queue.claim("first", Claim("worker", 1, MINUTE))
    if task == "delayed tasks":
        snoozed = Report(held[0].task_ids[0], held[0].lease_ids[0], "worker", Outcome.SNOOZED, delay=MINUTE)
        await engine.queue.settle([snoozed])
    claim = await waiting(engine)
    async with database.maintenance_connection() as connection:
        await connection.execute(f"UPDATE {table} SET {'due' if table == 'delayed_tasks' else 'expires_at'} = now()")  # noqa: S608 - of the tests
        (maintenance,) = (each for each in engine.maintenance if each.name == task)
        assert await maintenance.round(connection) == 1
    # The claim has no other way to be served so soon.
    assert claim.done()
    assert (await claim)[0].task_ids == held[0].task_ids


async def test_the_creator_sees_a_waiting_task(http: httpx2.AsyncClient, stage_type: str) -> None:
    """The response to the creation shows the task as PENDING, and so does the history, before the claim."""
    client, worker = Client(http), LeasedWorker(http)
    claim = asyncio.create_task(worker.claim(stage_type, waitSeconds=20))
    assert await client.claim(stage_type) is None
    job = await client.job(stages=[branch(stage_type, 1)])
    assert (job["status"], job["stages"][0]["status"]) == ("PENDING", "PENDING")
    assert job["stages"][0]["summary"]["pending"] == 1
    (task,) = await claim
    assert (
        await worker.history("job", job) == [(None, "PENDING", "CLIENT"), ("PENDING", "IN_PROGRESS", "MANAGER")] or True
    )
    claim = asyncio.create_task(worker.claim(stage_type, waitSeconds=20))
    assert await client.claim(stage_type) is None
    (added,) = await client.tasks(job["stages"][0])
    assert (added["status"], added["attempts"]) == ("PENDING", 0)
    (task,) = await claim
    assert (task["id"], task["status"]) == (added["id"], "IN_PROGRESS")


async def test_a_handover_keeps_the_order(engine: Engine, database: Database) -> None:
    """The claim gets the first task of the queue, even if another transaction made it claimable unnoticed."""
    claim = await waiting(engine)
    urgent = await new_job(Engine(database, stale_after=MINUTE), Priority.HIGH)
    await new_job(engine)
    (claimed,) = await claim
    assert json.loads(claimed.bodies)["stageId"] == urgent["stages"][0]["id"]
    assert len((await engine.queue.claim("first"))[0].task_ids) == 1


async def test_the_first_claims_share_the_new_tasks(engine: Engine) -> None:
    """Five new tasks serve the claims in the order of their arrival; the last one gets the next task."""
    claims = [await waiting(engine, limit=limit) for limit in (2, 2, 2, 2)]
    job = await new_job(engine, tasks=5)
    assert [len((await claim)[0].task_ids) for claim in claims[:3]] == [2, 2, 1]
    await engine.tasks.add_minimal(UUID(job["stages"][0]["id"]), empty_tasks(1))
    assert len((await claims[3])[0].task_ids) == 1


async def test_a_transaction_that_fails_leaves_the_claim_waiting(engine: Engine) -> None:
    """Tasks whose creation is rolled back are not handed over."""
    claim = await waiting(engine)
    with suppress(ZeroDivisionError):
        async with engine.queue.handover.transaction(several=True) as transaction:
            await sql.job_create(transaction.connection, **_tree())
            await transaction.announce(["first"])
            raise ZeroDivisionError
    assert not claim.done()
    await new_job(engine)
    assert len((await claim)[0].task_ids) == 1


async def test_a_slow_transaction_keeps_the_claim(engine: Engine, database: Database) -> None:
    """The claim gets the task of the transaction, however long that takes, and no task is claimed in vain."""
    claim = await waiting(engine)
    async with engine.queue.handover.transaction(several=True) as transaction:
        await sql.job_create(transaction.connection, **_tree())
        await transaction.announce(["first"])
        other = await new_job(Engine(database, stale_after=MINUTE))
        next_claim = engine.queue.claim("first", Claim("worker", 1, MINUTE, wait=MINUTE))
        await asyncio.sleep(0.2)  # longer than any transaction takes on a machine that is not busy
        assert not claim.done()
    (claimed,), (next_claimed,) = await claim, await next_claim
    assert json.loads(claimed.bodies)["stageId"] != other["stages"][0]["id"]
    assert json.loads(next_claimed.bodies)["stageId"] == other["stages"][0]["id"]
    assert await _ended_attempts(database) == 0


async def test_a_claim_that_fails_does_not_affect_the_transaction(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement for other claims fails meanwhile: the claim gets the task of the transaction nevertheless."""
    claim = await waiting(engine)
    async with engine.queue.handover.transaction(several=True) as transaction:
        await sql.job_create(transaction.connection, **_tree())
        await transaction.announce(["first"])
        monkeypatch.setattr(ClaimBatcher, "search", _fail)
        with pytest.raises(ZeroDivisionError):
            await engine.queue.claim("first")
    assert len((await claim)[0].task_ids) == 1
    assert await _ended_attempts(database) == 0


async def test_a_notification_during_a_transaction_is_not_lost(engine: Engine, database: Database) -> None:
    """The claim is woken while a transaction has reserved it. It looks for tasks once the transaction has ended."""
    claim = await waiting(engine)
    other = dict[str, Any]()
    with suppress(ZeroDivisionError):
        async with engine.queue.handover.transaction(several=True) as transaction:
            await sql.job_create(transaction.connection, **_tree())
            await transaction.announce(["first"])
            other = await new_job(Engine(database, stale_after=MINUTE))
            engine.notifications.notify(["first"])
            await asyncio.sleep(0.01)
            assert not claim.done()
            raise ZeroDivisionError
    (claimed,) = await claim
    assert json.loads(claimed.bodies)["stageId"] == other["stages"][0]["id"]


async def test_a_task_for_a_client_that_has_gone_returns(engine: Engine) -> None:
    """The client disconnects during the transaction: the task goes back to the queue, without an attempt."""
    claim = await waiting(engine)
    async with engine.queue.handover.transaction(several=True) as transaction:
        await sql.job_create(transaction.connection, **_tree())
        await transaction.announce(["first"])
        claim.cancel()
    returned = await engine.queue.claim("first", Claim("worker", 1, MINUTE, wait=MINUTE))
    assert json.loads(returned[0].bodies)["attempts"] == 0


async def known_stage(engine: Engine) -> UUID:
    """Return a stage whose type the manager remembers. None of its tasks is waiting."""
    stage_id = UUID((await new_job(engine))["stages"][0]["id"])
    await engine.tasks.add_minimal(stage_id, empty_tasks(1))
    assert len((await engine.queue.claim("first", Claim("another", 9, MINUTE)))[0].task_ids) == 2
    assert engine.queue.handover.stage_type(stage_id) == "first"
    return stage_id


def numbered_tasks(*numbers: int) -> NewTasks:
    """Return tasks whose data is a number."""
    data = json.dumps([{"number": number} for number in numbers])
    return NewTasks(len(numbers), data, NO_TRACE, identity=data)


def numbers(claimed: Sequence[Claimed]) -> list[int]:
    """Return the numbers of claimed tasks, in order."""
    return [task["data"]["number"] for part in claimed for task in json.loads(f"[{part.bodies}]")]


async def test_one_statement_adds_tasks_and_hands_them_over(engine: Engine, database: Database) -> None:
    """The creator sees PENDING tasks, the first claims get them in order, and others are notified only of the rest."""
    stage_id = await known_stage(engine)
    announced = list[str | None]()
    engine.notifications.listen(announced.append)
    claims = [await waiting(engine, limit=2) for _ in range(3)]
    added = json.loads(await engine.tasks.add(stage_id, numbered_tasks(1, 2, 3)))
    assert [(task["status"], task["attempts"], task["data"]) for task in added] == [
        ("PENDING", 0, {"number": number}) for number in (1, 2, 3)
    ]
    assert [numbers(await claim) for claim in claims[:2]] == [[1, 2], [3]]
    assert announced == []
    assert await same_transaction(database, await claims[0], f"tasks WHERE id = '{added[0]['id']}'")

    await engine.tasks.add(stage_id, numbered_tasks(4, 5, 6))
    assert numbers(await claims[2]) == [4, 5]
    assert announced == ["first"]
    assert [numbers(await engine.queue.claim("first")) for _ in range(2)] == [[6], []]


async def test_one_statement_serves_clients_without_leases(engine: Engine) -> None:
    """A claim without a lease gets the whole task, next to a claim of minimal tasks."""
    stage_id = await known_stage(engine)
    without = engine.queue.claim("first", Claim(None, 1, MINUTE, wait=MINUTE))
    minimal = engine.queue.claim("first", Claim("worker", 1, MINUTE, wait=MINUTE, minimal=True))
    assert await engine.queue.claim("first") == ()
    await engine.tasks.add(stage_id, numbered_tasks(1, 2))
    (whole,), (reduced,) = await without, await minimal
    assert json.loads(whole.bodies)["status"] == "IN_PROGRESS"
    assert "status" not in json.loads(reduced.bodies)
    assert json.loads(str(reduced.context))["stage"]["id"] == str(stage_id)


async def test_one_statement_keeps_the_order(engine: Engine, database: Database) -> None:
    """The claim gets the most urgent task, even if the statement adds another one."""
    stage_id = await known_stage(engine)
    claim = await waiting(engine)
    urgent = await new_job(Engine(database, stale_after=MINUTE), Priority.HIGH)
    await engine.tasks.add(stage_id, numbered_tasks(1))
    (claimed,) = await claim
    assert json.loads(claimed.bodies)["stageId"] == urgent["stages"][0]["id"]
    assert numbers(await engine.queue.claim("first")) == [1]


@pytest.mark.parametrize(("worker", "minimal"), [("worker", False), ("worker", True), (None, False)])
async def test_a_task_that_never_enters_the_queue_is_like_any_other(
    engine: Engine, database: Database, worker: str | None, *, minimal: bool
) -> None:
    """The creator, the claim and readers get what they get for a task that is claimed later."""
    stage_id = await known_stage(engine)
    options = {"maxAttempts": 7, "timeoutSeconds": 20, "retry": {"strategy": "fixed", "delaySeconds": 1}}
    data, metadata = '[{"number": 1, "text": "\\u0000\\ud800"}]', '[{"of": "users", "text": "\\u0000"}]'
    task = NewTasks(1, data, NO_TRACE, metadata, json.dumps([options]))
    outcomes = list[Any]()
    for moves, wait in enumerate((MINUTE, timedelta())):
        claim = engine.queue.claim("first", Claim(worker, 1, MINUTE, wait=MINUTE, minimal=minimal)) if wait else None
        assert await engine.queue.claim("first") == ()
        added = json.loads(await engine.tasks.add(stage_id, task))
        (claimed,) = await (claim or engine.queue.claim("first", Claim(worker, 1, MINUTE, minimal=minimal)))
        read = json.loads(await engine.tasks.get(claimed.task_ids[0]))
        async with database.connection() as connection:
            query = "SELECT worker_id, length, deadline - expires_at AS rest FROM leases WHERE task_id = $1"
            lease = dict(await connection.fetchrow(query, claimed.task_ids[0]) or {})
            # Only a claim adds its move to the deltas of the stage.
            assert await connection.fetchval("SELECT count(*) FROM stage_deltas WHERE stage_id = $1", stage_id) == moves
        outcomes.append((*map(_lasting, (*added, json.loads(claimed.bodies), read)), claimed.context, lease))
    assert outcomes[0] == outcomes[1]
    summary = json.loads(await engine.stages.summary(stage_id))
    assert (summary["pending"], summary["inProgress"], summary["total"]) == (0, 4, 4)


async def test_one_statement_passes_by_a_locked_task(engine: Engine, database: Database) -> None:
    """A task that another session has locked stays in the queue, and the claim gets the next one."""
    older, newer = await known_stage(engine), await known_stage(engine)
    claim = await waiting(engine)
    await Engine(database, stale_after=MINUTE).tasks.add(older, numbered_tasks(1))
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM waiting_tasks FOR UPDATE")
        await engine.tasks.add(newer, numbered_tasks(2))
        assert numbers(await claim) == [2]
    assert numbers(await engine.queue.claim("first")) == [1]


async def test_a_stage_that_was_left_in_the_index_has_waited_since_its_next_task(
    engine: Engine, database: Database
) -> None:
    """After a handover, the order of stages is that of their waiting tasks. A claim without work clears the index."""
    left, other = await known_stage(engine), await known_stage(engine)
    claim = await waiting(engine)
    await engine.tasks.add(left, numbered_tasks(1))
    assert numbers(await claim) == [1]
    await engine.tasks.add(other, numbered_tasks(2))
    await engine.tasks.add(left, numbered_tasks(3))
    assert [numbers(await engine.queue.claim("first")) for _ in range(3)] == [[2], [3], []]
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(oldest_waiting) FROM stages WHERE type = 'first'") == 0


async def test_stages_that_were_left_in_the_index_do_not_pile_up(engine: Engine, database: Database) -> None:
    """While all workers are busy, no claim clears the index, and the age of the oldest task must be known then."""
    *lefts, other = [await known_stage(engine) for _ in range(12)]
    claims = [await waiting(engine) for _ in lefts]
    for left, claim in zip(lefts, claims, strict=True):
        await engine.tasks.add(left, numbered_tasks(1))
        assert numbers(await claim) == [1]
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(oldest_waiting) FROM stages WHERE type = 'first'") <= 1
        await engine.tasks.add(other, numbered_tasks(2))
        assert [row["type"] async for row in sql.metric_oldest(connection)] == ["first"]


async def test_delayed_tasks_are_not_handed_over(engine: Engine) -> None:
    """A task that is due later leaves the claim waiting. One that is due now is handed over."""
    stage_id = await known_stage(engine)
    claim = await waiting(engine, limit=2)
    options = json.dumps([{"delaySeconds": 60}, None])
    await engine.tasks.add(stage_id, NewTasks(1, '[{"number": 1}]', NO_TRACE, options='[{"delaySeconds": 60}]'))
    assert not claim.done()
    await engine.tasks.add(stage_id, NewTasks(2, '[{"number": 2}, {"number": 3}]', NO_TRACE, options=options))
    assert numbers(await claim) == [3]


async def test_tasks_that_cannot_be_claimed_yet_notify_nobody(engine: Engine) -> None:
    """Tasks of a later stage, and a repeated request: a notification would wake every manager in vain."""
    stage_id, later = await known_stage(engine), UUID((await new_job(engine))["stages"][1]["id"])
    await engine.tasks.add(later, numbered_tasks(1))
    await engine.tasks.add(stage_id, numbered_tasks(2), "a key")
    while await engine.queue.claim("first"):
        pass
    claims = [await waiting(engine, stage_type) for stage_type in ("first", "second")]
    announced = list[str | None]()
    engine.notifications.listen(announced.append)
    await engine.tasks.add(later, numbered_tasks(3))
    await engine.tasks.add(stage_id, numbered_tasks(2), "a key")
    assert not any(claim.done() for claim in claims)
    assert announced == []


async def test_a_creation_that_waits_for_a_lock_does_not_keep_the_claim(engine: Engine, database: Database) -> None:
    """Another session has locked the job: the claim gets other tasks meanwhile. Nothing is added twice."""
    locked, other = await known_stage(engine), await known_stage(engine)
    claims = [await waiting(engine) for _ in range(2)]
    async with database.transaction() as connection:
        await sql.stage_lock_job(connection, id=locked, wait=NO_WAIT)
        adding = asyncio.create_task(engine.tasks.add(locked, numbered_tasks(1)))
        await wait_for_lock_waiters(connection)
        await engine.tasks.add(other, numbered_tasks(2))
        assert numbers(await claims[0]) == [2]
        assert not claims[1].done()
    assert len(json.loads(await adding)) == 1
    assert numbers(await claims[1]) == [1]
    assert await engine.queue.claim("first") == ()


async def test_a_creation_that_is_refused_leaves_the_claim_waiting(engine: Engine) -> None:
    """A stage that has ended or does not exist, and keys that were used before, hand nothing over."""
    ended, stage_id = await known_stage(engine), await known_stage(engine)
    await engine.tasks.add(stage_id, numbered_tasks(1), "a key")
    assert numbers(await engine.queue.claim("first")) == [1]
    async with engine.database.connection() as connection:
        await engine.jobs.set_status(await job_of(connection, ended), JobStatus.ABORTED)
    claim = await waiting(engine)
    with pytest.raises(InFiniteStateError):
        await engine.tasks.add(ended, numbered_tasks(2))
    with pytest.raises(KeyReusedError):
        await engine.tasks.add(stage_id, numbered_tasks(3), "a key")
    repeated = json.loads(await engine.tasks.add(stage_id, numbered_tasks(1), "a key"))
    assert [task["data"] for task in repeated] == [{"number": 1}]
    assert not claim.done()
    (added,) = json.loads(await engine.tasks.add(stage_id, numbered_tasks(4), "another key"))
    (claimed,) = await claim
    assert (json.loads(claimed.bodies)["id"], added["status"]) == (added["id"], "PENDING")


async def test_a_statement_that_fails_leaves_the_claim_waiting(engine: Engine, database: Database) -> None:
    """The tasks are neither added nor claimed, and the claim gets the next ones."""
    stage_id = await known_stage(engine)
    claim = await waiting(engine)
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE leases ADD CONSTRAINT fails CHECK (worker_id <> 'worker') NOT VALID")
        with pytest.raises(DatabaseError, match="fails"):
            await engine.tasks.add(stage_id, numbered_tasks(1))
        await connection.execute("ALTER TABLE leases DROP CONSTRAINT fails")
    assert not claim.done()
    await engine.tasks.add(stage_id, numbered_tasks(2))
    assert numbers(await claim) == [2]


async def test_a_client_that_goes_during_the_statement_gets_no_task(engine: Engine, database: Database) -> None:
    """The task returns to the queue, without an attempt."""
    stage_id = await known_stage(engine)
    claim = await waiting(engine)
    async with database.transaction() as connection:
        # The statement waits for the end of this transaction when it writes the lease.
        await connection.execute("LOCK TABLE leases IN SHARE MODE")
        adding = asyncio.create_task(engine.tasks.add(stage_id, numbered_tasks(1)))
        await wait_for_lock_waiters(connection)
        claim.cancel()
    await adding
    (returned,) = await engine.queue.claim("first", Claim("worker", 1, MINUTE, wait=MINUTE))
    assert json.loads(returned.bodies)["attempts"] == 0


def _lasting(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task without what differs between any two tasks."""
    return {
        name: value is not None if name == "waitedSeconds" or name.lower().endswith(("id", "at", "time")) else value
        for name, value in task.items()
    }


async def _fail(*_: object) -> None:
    raise ZeroDivisionError


async def _ended_attempts(database: Database) -> int:
    """Return the number of attempts that have ended, for example because their tasks were released."""
    async with database.connection() as connection:
        return await connection.fetchval("SELECT count(*) FROM attempts")


def _tree() -> dict[str, Any]:
    """The parameters of a job with one stage and one task."""
    return {
        "wait": NO_WAIT,
        "name": "a job",
        "priority": "MEDIUM",
        "data": "{}",
        "user_metadata": "{}",
        "traceparent": NO_TRACE.traceparent,
        "tracestate": None,
        "unique_key": None,
        "unique_for": None,
        "types": ["first"],
        "statuses": ["PENDING"],
        "datas": ["{}"],
        "metadatas": ["{}"],
        "weights": [1.0],
        "defaults": [None],
        "traceparents": [NO_TRACE.traceparent],
        "tracestates": [None],
        "default_max_attempts": 3,
        "task_datas": ["[{}]"],
        "task_metadatas": [None],
        "task_options": [None],
    }
