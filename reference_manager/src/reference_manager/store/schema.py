"""The schema of this version: its migrations and its routines.

The schema ``jobnik`` has what all versions share: tables, types, and the functions of triggers, defaults and locks. The
routines of each version are in a schema of their own, so that versions that run side by side do not replace each
other's routines.
"""

import re
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

_HERE: Final = Path(__file__).parent
_INDEX: Final = re.compile(r"^CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (\w+) ON jobnik\.(\w+)", re.MULTILINE)


class Migration(NamedTuple):
    """An SQL file that runs once in each database."""

    name: str
    script: str

    @classmethod
    def read(cls, file: Path) -> "Migration":
        """Read a migration from a file, whose name begins with four digits."""
        return cls(file.stem, file.read_text(encoding="utf-8"))

    @property
    def number(self) -> str:
        """The four digits."""
        return self.name[:4]

    @property
    def concurrent_index(self) -> tuple[str, str] | None:
        """The index that the migration builds concurrently, and its table; None: it runs in a transaction."""
        found = _INDEX.search(self.script)
        return (found[1], found[2]) if found else None


LEDGER: Final = (_HERE / "migrations" / "ledger.sql").read_text(encoding="utf-8")
"""Creates the tables that record the migrations."""
MIGRATIONS: Final = tuple(map(Migration.read, sorted((_HERE / "migrations").glob("[0-9]*.sql"))))
LATEST_MIGRATION: Final = MIGRATIONS[-1].number
BASELINE: Final = "0007"
"""The latest migration of the first version, which runs only if exactly its own migrations are recorded."""

ROUTINES: Final = "".join(file.read_text(encoding="utf-8") for file in sorted((_HERE / "routines").glob("*.sql")))
"""One script that creates all routines."""
ROUTINE_SCHEMA: Final = (
    "jobnik_" + sha256("".join([*(script for _, script in MIGRATIONS), ROUTINES]).encode()).hexdigest()[:8]
)
"""The schema of the routines. Its name changes with every migration and routine: a database that has this schema needs
no upgrade."""
SEARCH_PATH: Final = f"{ROUTINE_SCHEMA}, jobnik"
"""The search path of the sessions of a manager."""

LOCK_KEY: Final = 0x6A6F626E696B
"""The key of the advisory lock that a manager holds while it migrates: "jobnik" in ASCII."""

MIN_POSTGRES_VERSION: Final = 15
