"""The schema of this version: its files, its latest migration, and the lock for migrating."""

from pathlib import Path
from typing import Final

MIGRATIONS: Final = Path(__file__).parent / "migrations"
ROUTINES: Final = tuple(sorted((Path(__file__).parent / "routines").glob("*.sql")))
"""The routines, in the order in which they are replaced at every start, after the migrations."""

LATEST_MIGRATION: Final = max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))

LOCK_KEY: Final = 0x6A6F626E696B
"""The key of the advisory lock that a manager holds while it migrates: "jobnik" in ASCII."""

MIN_POSTGRES_VERSION: Final = 15
