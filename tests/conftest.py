"""How pytest runs the suite: with ``-n 4``, it spreads it over four workers; a plain ``pytest`` has no workers."""

import gc
import signal
import sys

import pytest
from jobnik_sdk.observability import metrics
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs] annotated, but without py.typed

from tests.support import long_runs
from tests.support.forked_programs import start_manager
from tests.support.scheduler import ByPlace
from tools.manager import ManagerProcess

if sys.platform == "linux":  # elsewhere, forks of a process with threads of the system are not safe
    ManagerProcess.start = start_manager

# A shell that runs the suite in the background lets it, and so every program of the tests, ignore these signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

long_runs.register()
# Until the tests are collected: imports leave little garbage, and the search for it takes a quarter of their time.
gc.disable()


@pytest.fixture(autouse=True)
def stage_types_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count stage types for each test: the limit of a process is lower than the number that all tests have."""
    monkeypatch.setattr(metrics, "_stage_types", metrics.LabelValues(metrics.MAX_STAGE_TYPES))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByPlace:
    """Let each worker take test files from a different place in the collection."""
    return ByPlace(config, log)


def pytest_collection_finish() -> None:
    """Exempt the modules and the tests from garbage collection, which would search them again and again."""
    gc.freeze()
    gc.enable()
