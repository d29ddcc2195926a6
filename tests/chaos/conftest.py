"""The site that the tests of this folder share: they strike it one after the other."""

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.chaos.checks import Checks
from tests.chaos.site import Site

SEED = 7


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Generator[Site]:
    """Everything that chaos happens to; its data and logs are kept if a test fails."""
    folder = Path(tempfile.mkdtemp(prefix="jobnik-chaos-"))
    folder.chmod(0o755)
    failed_before = request.session.testsfailed
    with Site(folder, SEED) as site:
        yield site
    if request.session.testsfailed == failed_before:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def checks(site: Site) -> Checks:
    """What has been checked so far."""
    return Checks(site)
