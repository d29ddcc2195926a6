"""The schema of this version: its files, its newest migration, and the lock of those who migrate."""

from pathlib import Path
from typing import Final

MIGRATIONS: Final = Path(__file__).parent / "migrations"
ROUTINES: Final = tuple(sorted((Path(__file__).parent / "routines").glob("*.sql")))
"""Replaced at every start, in this order, after the migrations."""

LATEST_MIGRATION: Final = max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))

LOCK_KEY: Final = 0x6A6F626E696B
"""The advisory lock that migrating managers queue for: "jobnik" in ASCII."""

MIN_POSTGRES_VERSION: Final = 15
