"""Add retry policies, defaults of tasks' options, weights of stages and the fractions that leases tell."""

from pathlib import Path

from alembic import op
from reference_manager.store.scripts import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
