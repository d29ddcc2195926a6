"""How the suite is spread over two workers, where pytest is started with ``-n 2``; a plain ``pytest`` has none."""

import pytest

from tests.support.two_workers import FromBothEnds


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> FromBothEnds:
    """Spread test files over the workers from both ends of the collection."""
    return FromBothEnds(config)
