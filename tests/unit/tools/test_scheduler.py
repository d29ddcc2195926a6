"""Which worker runs which tests, and when, as the scheduler of `make test` decides."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs] annotated, but without py.typed

from tests.support.scheduler import ByPlace

FILES = "abcdefghijklmnopqrstuvw"
TESTS = [f"{file}.py::test_{number}" for file in FILES for number in range(4)]


class Worker:
    """Starts a test when it knows the one after it, or that there is none, as a worker of xdist does."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.shutting_down = False
        self.given: list[int] = []
        self.ran: list[int] = []

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        """Take some tests."""
        assert not self.shutting_down
        self.given += indices

    def shutdown(self) -> None:
        """Learn that nothing more will come."""
        self.shutting_down = True

    @property
    def next(self) -> int | None:
        """The test that it is ready to run."""
        waiting = self.given[len(self.ran) :]
        return waiting[0] if len(waiting) > 1 or (waiting and self.shutting_down) else None


def run(names: str, tests: list[str]) -> tuple[list[list[str]], dict[str, list[str]]]:
    """Run these tests on workers of these names, a test a moment; what ran in each moment, and what each worker ran."""
    options = {"tx": [f"{len(names)}*popen"]}
    config = SimpleNamespace(option=SimpleNamespace(), getvalue=options.__getitem__)
    scheduler = ByPlace(cast("pytest.Config", config), Producer("", enabled=False))
    workers = [Worker(name) for name in names]
    active: list[Any] = list(workers)
    for worker in active:
        scheduler.add_node(worker)
    for worker in active:
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()

    moments: list[list[str]] = []
    while active:
        running = [(worker, worker.next) for worker in active if worker.next is not None]
        for worker, test in running:
            worker.ran.append(test)
            scheduler.mark_test_complete(worker, test)
        moments.append([tests[test] for _, test in running])
        for worker in [one for one in active if one.shutting_down and len(one.ran) == len(one.given)]:
            if worker in scheduler.nodes:  # one that got no work has been forgotten already
                assert scheduler.remove_node(worker) is None
            active.remove(worker)
        if scheduler.tests_finished:
            for worker in active:
                worker.shutdown()
    return moments, {worker.gateway.id: [tests[test] for test in worker.ran] for worker in workers}


def test_each_worker_takes_files_from_its_own_place() -> None:
    """The first worker starts at the front, the second at the back, the others between them; each has whole files."""
    moments, ran = run("abcd", TESTS)

    files = {name: "".join(dict.fromkeys(test[0] for test in tests[:12])) for name, tests in ran.items()}
    assert files == {"a": "abc", "b": "wvu", "c": "ihj", "d": "poq"}
    assert {len(moment) for moment in moments[:-1]} == {4}


def test_the_last_files_are_shared() -> None:
    """A long file that is among the last does not keep one worker busy after the others have ended."""
    long = [f"long.py::test_{number}" for number in range(40)]
    moments, ran = run("abc", [*TESTS[:28], *long, *TESTS[28:]])

    assert {len(moment) for moment in moments[:-1]} == {3}
    assert all(set(tests) & set(long) for tests in ran.values())


@pytest.mark.parametrize("tests", [TESTS, TESTS[:7], TESTS[:5], TESTS[:4], TESTS[:1]], ids=len)
@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_every_test_runs_once(names: str, tests: list[str]) -> None:
    """However many tests, files and workers there are."""
    _, ran = run(names, tests)
    assert sorted(test for some in ran.values() for test in some) == sorted(tests)
