"""Add leases, attempts, history and workers; the tasks that wait get a table of their own."""

from pathlib import Path

from alembic import op
from reference_manager.store.scripts import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
