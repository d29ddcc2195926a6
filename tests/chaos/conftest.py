"""The cluster that the tests of a module share. It ends with the module: its workers never stop claiming."""

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.chaos.checks import Checks
from tests.chaos.cluster import Cluster

SEED = 7


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Generator[Cluster]:
    """Start the cluster. Its data and logs are kept if a test fails."""
    folder = Path(tempfile.mkdtemp(prefix="jobnik-chaos-"))
    folder.chmod(0o755)
    failed_before = request.session.testsfailed
    with Cluster(folder, SEED) as cluster:
        yield cluster
    if request.session.testsfailed == failed_before:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def checks(cluster: Cluster) -> Checks:
    """Return the checks, which remember the finished jobs of earlier tests."""
    return Checks(cluster)
