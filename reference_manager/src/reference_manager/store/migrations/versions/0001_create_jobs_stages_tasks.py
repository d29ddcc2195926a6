"""Create the tables, types and indexes of jobs, stages and tasks."""

from pathlib import Path

from alembic import op
from reference_manager.store.scripts import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
