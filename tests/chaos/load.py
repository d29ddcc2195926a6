"""Jobs for the workers, with several stages of several types and tasks with every outcome."""

from enum import StrEnum
from itertools import cycle, islice
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

import httpx2

from tests.chaos.cluster import STAGE_TYPES, Cluster
from tests.chaos.plan import Kind
from tests.support.protocol import Client

MANY_ATTEMPTS = 200
"""Enough attempts to complete a task however often its workers are killed."""
FEW_ATTEMPTS = 3


class Outcome(StrEnum):
    """The expected status of a job that is not aborted."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Stage(NamedTuple):
    """The number of tasks in a stage, by kind."""

    steady: int
    doomed: int = 0
    stubborn: int = 0


STEADY = [Stage(6), Stage(9), Stage(3)]
FAILING = [Stage(5), Stage(8, doomed=1)]
GIVING_UP = [Stage(3), Stage(0, stubborn=1)]
JOBS = [STEADY] * 3 + [FAILING] + [GIVING_UP]


async def create(cluster: Cluster, times: int) -> dict[UUID, Outcome]:
    """Create `times` sets of five jobs; return their ids and expected outcomes."""
    url = cluster.random.choice(cluster.managers).url
    async with httpx2.AsyncClient(base_url=url, timeout=15) as http:
        client = Client(http)
        jobs = [(await _create_job(client, stages, cluster.random), stages) for stages in JOBS * times]
    return {job: Outcome.COMPLETED if stages is STEADY else Outcome.FAILED for job, stages in jobs}


async def create_probes(cluster: Cluster) -> list[UUID] | None:
    """Create a job with one task for each stage type, none of which fails. Return their ids, or None if that failed."""
    url = cluster.random.choice(cluster.managers).url
    task = _task(Kind.SURE, cluster.random)
    jobs: list[UUID] = []
    async with httpx2.AsyncClient(base_url=url, timeout=5) as http:
        for stage_type in STAGE_TYPES:
            stage: dict[str, Any] = {"type": stage_type, "data": {}, "tasks": [task]}
            try:
                response = await http.post("/v1/jobs", json={"name": "probe", "data": {}, "stages": [stage]})
            except httpx2.TransportError:
                return None
            if not response.is_success:
                return None
            jobs.append(UUID(response.json()["id"]))
    return jobs


async def _create_job(client: Client, stages: list[Stage], random: Random) -> UUID:
    job = await client.job(priority=random.choice(["HIGH", "MEDIUM", "LOW"]))
    types = islice(cycle(STAGE_TYPES), random.randrange(len(STAGE_TYPES)), None)
    added = [(await client.stage(job, stage_type), stage) for stage_type, stage in zip(types, stages, strict=False)]
    for entity, stage in reversed(added):  # the first stage last, so that work starts when all tasks exist
        tasks = [_task(Kind.STEADY, random) for _ in range(stage.steady)]
        tasks += [_task(Kind.DOOMED, random) for _ in range(stage.doomed)]
        tasks += [_task(Kind.STUBBORN, random) for _ in range(stage.stubborn)]
        random.shuffle(tasks)
        response = await client.http.post(f"/v1/stages/{entity['id']}/tasks", json=tasks)
        assert response.is_success, response.text
    return UUID(job["id"])


def _task(kind: Kind, random: Random) -> dict[str, Any]:
    attempts = FEW_ATTEMPTS if kind is Kind.STUBBORN else MANY_ATTEMPTS
    return {"data": {"kind": kind, "dice": random.randrange(2**31)}, "maxAttempts": attempts}
