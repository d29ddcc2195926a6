"""Jobs for the workers, with several stages of several types and tasks with every outcome."""

from enum import StrEnum
from http import HTTPStatus
from itertools import cycle, islice
from random import Random
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx2

from tests.chaos.cluster import STAGE_TYPES, Cluster, eventually
from tests.chaos.plan import Kind

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
        jobs = [(await _create_job(http, stages, cluster.random), stages) for stages in JOBS * times]
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


async def _create_job(http: httpx2.AsyncClient, stages: list[Stage], random: Random) -> UUID:
    priority = random.choice(["HIGH", "MEDIUM", "LOW"])
    job = await _post(http, "/v1/jobs", {"name": "a job", "data": {}, "priority": priority})
    types = islice(cycle(STAGE_TYPES), random.randrange(len(STAGE_TYPES)), None)
    added = [
        (await _post(http, f"/v1/jobs/{job['id']}/stage", {"type": stage_type, "data": {}}), stage)
        for stage_type, stage in zip(types, stages, strict=False)
    ]
    for entity, stage in reversed(added):  # the first stage last, so that work starts when all tasks exist
        tasks = [_task(Kind.STEADY, random) for _ in range(stage.steady)]
        tasks += [_task(Kind.DOOMED, random) for _ in range(stage.doomed)]
        tasks += [_task(Kind.STUBBORN, random) for _ in range(stage.stubborn)]
        random.shuffle(tasks)
        await _post(http, f"/v1/stages/{entity['id']}/tasks", tasks)
    return UUID(job["id"])


async def _post(http: httpx2.AsyncClient, path: str, body: object) -> Any:  # noqa: ANN401 - any JSON
    """Create something. Repeat the request, with its idempotency key, while the manager is busy or does not answer."""
    key = {"Idempotency-Key": str(uuid4())}

    async def created() -> httpx2.Response | None:
        try:
            response = await http.post(path, json=body, headers=key)
        except httpx2.TransportError:
            return None
        return None if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE else response

    response = await eventually("a manager creates jobs", created)
    assert response.is_success, response.text
    return response.json()


def _task(kind: Kind, random: Random) -> dict[str, Any]:
    attempts = FEW_ATTEMPTS if kind is Kind.STUBBORN else MANY_ATTEMPTS
    return {"data": {"kind": kind, "dice": random.randrange(2**31)}, "maxAttempts": attempts}
