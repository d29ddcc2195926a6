"""How pytest-xdist spreads the suite over four workers: ``pytest -n 4``, which ``make test`` runs.

Many tests wait for leases or for processes to end, so four workers keep two cores busy. One takes test files from the
front of the collection, one from the back, and the others from between, at equal distances. Each worker thus stays
in one part of the tree, and the session fixtures of a folder (a PostgreSQL, an installed project) are built twice only
where workers meet. The last files are split into tests, so that all workers end at about the same time. A file with a
test that waits for longer than that comes first.
"""

from typing import Final

import pytest
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs] annotated, but without py.typed
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs] as above
from xdist.workermanage import WorkerController  # pyright: ignore[reportMissingTypeStubs] as above

_LAST_FILES: Final = 6
"""How many files are split into tests: enough to keep all workers busy for as long as the longest file takes."""

_FIRST_FILE: Final = "tests/integration/manager/test_silent_connections.py"
"""The file of the longest wait, for deadlines of 20 s, during which other tests need the processors."""


class ByPlace(LoadScopeScheduling):
    """A scheduler whose unit of work is a test file, and whose workers take files from different places.

    Of the last files, the unit of work is a test.

    Args:
        config: The configuration of the controlling process.
        log: Where `pytest --debug` writes.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        # By default xdist orders files by how many tests they have.
        config.option.loadscopereorder = False
        super().__init__(config, log)
        self._split = set[str]()

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file in self._split else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        if not self._split and len(self.workqueue) <= _LAST_FILES:
            self._split.update(self.workqueue)
            tests = [(test, done) for file in self.workqueue.values() for test, done in file.items()]
            self.workqueue.clear()
            self.workqueue.update({test: {test: done} for test, done in tests})
        units = list(self.workqueue)
        number, spaces = self.nodes.index(node), max(len(self.nodes) - 1, 1)
        place = (0, -1)[number] if number < 2 else len(units) * (number - 1) // spaces
        unit = _FIRST_FILE if _FIRST_FILE in self.workqueue else units[place]
        self.workqueue.move_to_end(unit, last=False)
        super()._assign_work_unit(node)
