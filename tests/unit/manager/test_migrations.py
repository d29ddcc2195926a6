"""Rules for migrations and routines: managers of the previous release work with the new schema, too."""

import re
from pathlib import Path

import pytest
from reference_manager.store import schema
from reference_manager.store.schema import BASELINE, MIGRATIONS, ROUTINES

FOLDER = Path(schema.__file__).parent / "migrations"
HARMLESS: dict[str, str] = {
    "0009": "every read of a task joins its stage, so a task without a stage is invisible to the previous release too",
    "0013": "the new triggers write the same history, and totals with the same sums, for statements of any release",
    "0014": "the same as 0013",
    "0016": "a trigger deletes what the constraint deleted, and the primary key finds what the index found",
}
"""Numbers of migrations that break a rule, and why the previous release works with them nevertheless."""

REQUIRES_A_NEWER_MANAGER = re.compile(r"^UPDATE migrations SET version_num = '\d{4}';$", re.MULTILINE)
REMOVES = re.compile(r"\b(?:DROP|RENAME|TRUNCATE|DELETE FROM|SET NOT NULL|ADD CONSTRAINT|ADD CHECK|TYPE)\b")
ADDED_COLUMN = re.compile(r"\bADD (?:COLUMN )?(?!CONSTRAINT|CHECK|VALUE)\w+ [^,;]*")
LOCKING_INDEX = re.compile(
    r"\bCREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)[^;]* ON (?:attempts|history|jobs|stages|tasks) "
)
CREATED_FUNCTION = re.compile(r"^CREATE (?:OR REPLACE )?FUNCTION (\w+)", re.MULTILINE)


def broken_rules(script: str) -> list[str]:
    """Return the parts of a script that break managers of the previous release."""
    for ignored in (r"--.*", r"\$\$[^$]*\$\$", r"CREATE TYPE", r"\([^()]*\)", r"\([^()]*\)"):
        script = re.sub(ignored, "", script)
    broken = [f"{removal} removes something that they use" for removal in REMOVES.findall(script)]
    broken += [
        f"they insert no value for a column: {column}"
        for column in ADDED_COLUMN.findall(script)
        if "NOT NULL" in column and "DEFAULT" not in column
    ]
    return broken + [f"they cannot write meanwhile: {index}" for index in LOCKING_INDEX.findall(script)]


@pytest.mark.parametrize(
    ("script", "broken"),
    [
        ("ALTER TABLE tasks ADD COLUMN later text, ADD COLUMN more numeric(7, 6) NOT NULL DEFAULT 0;", 0),
        ("CREATE TYPE later AS ENUM ('A'); CREATE TABLE later (id integer NOT NULL); -- DROP", 0),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS later ON jobnik.tasks (later);", 0),
        ("CREATE INDEX later ON leases (later);", 0),
        ("ALTER TABLE tasks ADD later numeric(7, 6) NOT NULL, ADD more text NOT NULL DEFAULT '';", 1),
        ("ALTER TABLE tasks DROP COLUMN data, RENAME COLUMN seq TO number;", 2),
        ("ALTER TABLE tasks ALTER COLUMN seq TYPE integer;", 1),
        ("CREATE UNIQUE INDEX later ON tasks (later);", 1),
    ],
)
def test_the_rules_find_what_breaks_the_previous_release(script: str, broken: int) -> None:
    """Additions are accepted. Statements that remove, narrow or lock something are not."""
    assert len(broken_rules(script)) == broken


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda migration: migration.name)
def test_migrations_only_add(migration: schema.Migration) -> None:
    """A migration only adds, says which managers can no longer use the database, or has a reason."""
    broken = broken_rules(migration.script) if migration.number > BASELINE else []
    assert not broken or migration.number in HARMLESS or REQUIRES_A_NEWER_MANAGER.search(migration.script), broken


def test_a_concurrent_index_is_a_migration_of_its_own() -> None:
    """Such a migration is not a transaction, so it has one statement."""
    for migration in MIGRATIONS:
        statements = re.sub(r"--.*", "", migration.script).strip().rstrip(";")
        assert ("CONCURRENTLY" in statements) == bool(migration.concurrent_index), migration.name
        assert not migration.concurrent_index or ";" not in statements, migration.name


def test_shared_functions_never_change() -> None:
    """A function of the schema ``jobnik`` is created once, under a name that no routine has."""
    names = [name for migration in MIGRATIONS for name in CREATED_FUNCTION.findall(migration.script)]
    assert len(set(names)) == len(names)
    assert set(names).isdisjoint(CREATED_FUNCTION.findall(ROUTINES))


def test_all_files_are_migrations() -> None:
    """Each has its own number."""
    names = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert names == {"ledger.sql", *(f"{migration.name}.sql" for migration in MIGRATIONS)}
    assert len({migration.number for migration in MIGRATIONS}) == len(MIGRATIONS)
