"""How pytest-xdist spreads the suite over three workers: ``pytest -n 3``, which ``make test`` runs.

Many tests wait for leases or for processes to end, so three workers keep two cores busy. One takes test files from the
front of the collection, one from the back, and one from the middle of the files that are left. Each worker thus stays
in one part of the tree, and the session fixtures of a folder (a PostgreSQL, an installed project) are built twice only
where workers meet.
"""

import pytest
from xdist.remote import Producer  # pyright: ignore[reportMissingTypeStubs] annotated, but without py.typed
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs] as above
from xdist.workermanage import WorkerController  # pyright: ignore[reportMissingTypeStubs] as above


class ByPlace(LoadScopeScheduling):
    """A scheduler whose unit of work is a test file, and whose workers take files from different places.

    Args:
        config: The configuration of the controlling process.
        log: Where `pytest --debug` writes.
    """

    def __init__(self, config: pytest.Config, log: Producer) -> None:
        # By default xdist orders files by how many tests they have.
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        files = list(self.workqueue)
        places = (0, -1, len(files) // 2)
        self.workqueue.move_to_end(files[places[self.nodes.index(node)]], last=False)
        super()._assign_work_unit(node)
