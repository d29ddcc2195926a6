"""What a worker says to a manager that lends tasks."""

import json
from datetime import timedelta

import httpx2
from jobnik_sdk import Empty, JobnikClient, StageType
from jobnik_sdk.worker.leased_source import LeasedTaskSource


async def test_a_claim_waits_no_longer_than_the_client_has_patience() -> None:
    """Else an empty queue would look like a manager that does not answer."""
    wishes: list[float] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        wishes.append(json.loads(request.content)["waitSeconds"])
        return httpx2.Response(200, json={"tasks": []})

    for patience in (4, 300):
        timeout, transport = timedelta(seconds=patience), httpx2.MockTransport(answer)
        async with JobnikClient("http://manager", timeout=timeout, transport=transport) as client:
            assert not await LeasedTaskSource(client, "me", timedelta(seconds=30)).claim(
                StageType("any", task=Empty), 1
            )
    assert wishes == [2, 20]
