"""How pytest-xdist spreads the suite over two workers: ``pytest -n 2``, which ``make test`` runs.

One worker takes test files from the front of the collection, the other from the back, until they meet. Each worker thus
stays in one part of the tree, and the session fixtures of a folder (a PostgreSQL, an installed project) are built twice
only in the folder where the workers meet.

Some tests measure time, or load the machine so heavily that others would fail beside them. They run last, one after the
other, when the second worker has ended.
"""

from collections.abc import Iterable

import pytest
from xdist.scheduler import LoadScopeScheduling  # pyright: ignore[reportMissingTypeStubs] annotated, but without py.typed
from xdist.workermanage import WorkerController  # pyright: ignore[reportMissingTypeStubs] as above


class FromBothEnds(LoadScopeScheduling):
    """A scheduler whose unit of work is a test file, or a single test that runs alone.

    Args:
        config: The configuration of the controlling process.
        alone: Paths of files and folders, relative to the root folder. Their tests run alone.
    """

    def __init__(self, config: pytest.Config, alone: Iterable[str] = ()) -> None:
        # By default xdist orders files by how many tests they have.
        config.option.loadscopereorder = False
        super().__init__(config)
        self._alone = tuple(alone)

    def remove_node(self, node: WorkerController) -> str | None:
        """Remove a worker that has ended, so that the remaining worker can run the tests that run alone."""
        crashed = super().remove_node(node)
        for left in self.nodes:
            self._reschedule(left)
        return crashed

    def _runs_alone(self, nodeid: str) -> bool:
        file = nodeid.partition("::")[0]
        return any(file == path or file.startswith(f"{path}/") for path in self._alone)

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if self._runs_alone(nodeid) else nodeid.partition("::")[0]

    def _reschedule(self, node: WorkerController) -> None:
        if node.shutting_down or self._pending_of(self.assigned_work[node]) > 2:
            return
        if self._next_unit(node) is not None:
            self._assign_work_unit(node)
        elif not self.workqueue or node is not self._keeper():
            node.shutdown()

    def _assign_work_unit(self, node: WorkerController) -> None:
        unit = self._next_unit(node)
        if unit is not None:
            self.workqueue.move_to_end(unit, last=False)
            super()._assign_work_unit(node)

    def _next_unit(self, node: WorkerController) -> str | None:
        """Choose the next unit of a worker; None: there is none for it, or none yet."""
        shared = [unit for unit in self.workqueue if not self._runs_alone(unit)]
        if shared:
            return shared[0 if node is self._keeper() else -1]
        if not self.workqueue or node is not self._keeper():
            return None
        # A worker starts a test only once it has the next one. While the other worker is busy, it therefore gets only
        # one test that runs alone: it can finish the last test of its last file, but not start that one.
        holds_one = any(self._runs_alone(unit) for unit in self.assigned_work[node])
        return None if holds_one and len(self.nodes) > 1 else next(iter(self.workqueue))

    def _keeper(self) -> WorkerController | None:
        """Return the worker that runs the tests that run alone."""
        return next((node for node in self.nodes if not node.shutting_down), None)
