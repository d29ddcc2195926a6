"""Fixtures: a client and a producer of a real manager, and a name of its own for each test."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from jobnik_sdk import JobnikClient, Producer


@pytest.fixture
async def client(manager_url: str) -> AsyncIterator[JobnikClient]:
    """A client of the manager."""
    async with JobnikClient(manager_url) as client:
        yield client


@pytest.fixture
def producer(client: JobnikClient) -> Producer:
    """A producer on the manager."""
    return Producer(client)


@pytest.fixture
def own_name() -> str:
    """A name for a job or stage type that no other test uses."""
    return f"sdk-{uuid4()}"
