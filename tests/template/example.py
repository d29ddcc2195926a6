"""The files of the example in a rendered project, as listed in docs/how-to/remove-the-example.md."""

from typing import Final

DELETED: Final = (
    "seed.py",
    "src/thumbnail_worker/definitions.py",
    "src/thumbnail_worker/handlers.py",
    "tests/integration/test_worker.py",
    "tests/unit/test_handlers.py",
)
"""Files that belong to the example alone."""

EDITED: Final = (
    ".env.example",
    "pyproject.toml",
    "src/thumbnail_worker/container.py",
    "src/thumbnail_worker/settings.py",
)
"""Files that refer to the example."""
