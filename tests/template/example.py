"""What of a rendered project belongs to the example: docs/how-to/remove-the-example.md says it to people."""

from typing import Final

DELETED: Final = (
    "seed.py",
    "src/thumbnail_worker/definitions.py",
    "src/thumbnail_worker/handlers.py",
    "tests/integration/test_worker.py",
    "tests/unit/test_handlers.py",
)
"""The example's own files."""

EDITED: Final = (
    ".env.example",
    "pyproject.toml",
    "src/thumbnail_worker/container.py",
    "src/thumbnail_worker/settings.py",
)
"""Files that name something of it."""
