"""How the suite is spread over two workers, where pytest is started with ``-n 2``; a plain ``pytest`` has none."""

from pathlib import Path
from typing import Final

import pytest

from tests.support.two_workers import FromBothEnds

ROOT: Final = Path(__file__).parents[1]

ALONE: Final = {
    "tests/integration/sdk/test_misbehaving_handlers.py": "counts attempts while leases of half a second expire",
}
"""Files and folders whose tests run last, beside no other test, and why."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> FromBothEnds:
    """Spread test files over the workers from both ends of the collection."""
    if missing := [path for path in ALONE if not (ROOT / path).exists()]:
        raise pytest.UsageError(f"{', '.join(missing)} is gone or renamed: correct ALONE in tests/conftest.py")
    return FromBothEnds(config, ALONE)
