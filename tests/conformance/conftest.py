"""The managers that must all behave alike. Each test uses job and stage names of its own."""

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest
from jobnik_sdk import Consumer, JobnikClient, Producer
from jobnik_sdk.testing.fake.manager import ADDRESS, FakeManager
from reference_manager.embedded import EmbeddedPostgres

from tests.conformance.managers import Manager
from tests.conformance.workload import Workload
from tests.support.original_manager import OriginalManager
from tools.data_folder import temporary_data_folder
from tools.manager import ManagerProcess

KINDS = ("reference", "reference, part A", "fake", "fake, part A", "original", "original's successor")


BLOCKING = ("[sync-reference]", "[sync-fake, part A]")
"""How tests of a SyncProducer end: since it shares the code of the Producer, two managers are enough."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests with a SyncProducer against the managers in `BLOCKING` only."""
    items[:] = [item for item in items if "[sync-" not in item.name or item.name.endswith(BLOCKING)]


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A database for the session, without the durability that only a power cut needs."""
    with temporary_data_folder(in_memory=True) as folder, EmbeddedPostgres(folder, durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def reference_url(database_url: str) -> Iterator[str]:
    """The address of the reference manager."""
    with ManagerProcess("--database-url", database_url) as manager:
        yield manager.url


@pytest.fixture(scope="session")
def reference_part_a_url(database_url: str) -> Iterator[str]:
    """The address of a reference manager that serves part A of the protocol alone."""
    with ManagerProcess("--database-url", database_url, "--part-a-only") as manager:
        yield manager.url


@pytest.fixture(params=KINDS)
def manager(request: pytest.FixtureRequest) -> Manager:
    """Each manager in turn."""
    match request.param:
        case "reference":
            return Manager(request.getfixturevalue("reference_url"), None, part_b=True)
        case "reference, part A":
            return Manager(request.getfixturevalue("reference_part_a_url"), None, part_b=False)
        case "fake":
            return Manager(ADDRESS, FakeManager().transport, part_b=True)
        case "fake, part A":
            return Manager(ADDRESS, FakeManager(part_a_only=True).transport, part_b=False)
        case kind:
            transport = OriginalManager(has_pages=kind != "original")
            return Manager(ADDRESS, transport, part_b=False, is_original=True)


@pytest.fixture
def part_b(manager: Manager) -> bool:
    """Whether the manager has part B of the protocol."""
    return manager.part_b


@pytest.fixture
def is_original(manager: Manager) -> bool:
    """Whether the manager is the original one, or its successor."""
    return manager.is_original


@pytest.fixture
async def client(manager: Manager) -> AsyncIterator[JobnikClient]:
    """A client of the manager."""
    async with JobnikClient(manager.url, transport=manager.transport) as client:
        yield client


@pytest.fixture
def producer(client: JobnikClient) -> Producer:
    """A producer on the manager."""
    return Producer(client)


@pytest.fixture
def consumer(client: JobnikClient) -> Consumer:
    """A consumer on the manager."""
    return Consumer(client)


@pytest.fixture
def own_name() -> str:
    """A name for a job or stage type that no other test uses."""
    return f"own-{uuid4()}"


@pytest.fixture
def workload(client: JobnikClient, own_name: str) -> Workload:
    """A job of numbers on the manager."""
    return Workload(client, own_name)
