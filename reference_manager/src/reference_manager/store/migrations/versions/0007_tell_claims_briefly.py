"""Let claims be told briefly."""

from pathlib import Path

from alembic import op
from reference_manager.store.scripts import run_script

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL file of the same name."""
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
