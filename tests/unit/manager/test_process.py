"""What the process of the manager does besides serving."""

import gc

from reference_manager.server.process import YOUNG_OBJECTS, tune_garbage_collection


def test_garbage_collections_ignore_what_the_start_has_loaded() -> None:
    """Otherwise, each full one would stop all requests."""
    before = gc.get_threshold()
    kept = [[number] for number in range(1000)]
    frozen = gc.get_freeze_count()
    try:
        tune_garbage_collection()
        assert gc.get_threshold()[0] == YOUNG_OBJECTS
        assert gc.get_freeze_count() >= frozen + len(kept)
    finally:
        gc.set_threshold(*before)
