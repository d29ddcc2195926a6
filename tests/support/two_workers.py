"""How pytest-xdist spreads the suite over two workers: ``pytest -n 2``, which ``make test`` runs.

One worker takes test files from the front of the collection, the other from the back, until they meet. Each worker thus
stays in one part of the tree, and the session fixtures of a folder (a PostgreSQL, an installed project) are built twice
only in the folder where the workers meet.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs] annotated, but without py.typed
from xdist.workermanage import WorkerController  # pyright: ignore[reportMissingTypeStubs] as above


class FromBothEnds(LoadScopeScheduling):
    """A scheduler whose unit of work is a test file.

    Args:
        config: The configuration of the controlling process.
    """

    def __init__(self, config: pytest.Config) -> None:
        # By default xdist orders files by how many tests they have.
        config.option.loadscopereorder = False
        super().__init__(config)

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is not self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)
