"""How the suite is spread over three workers, if pytest is started with ``-n 3``; a plain ``pytest`` has no workers."""

import pytest
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs] annotated, but without py.typed

from tests.support.scheduler import ByPlace


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByPlace:
    """Let each worker take test files from a different place in the collection."""
    return ByPlace(config, log)
