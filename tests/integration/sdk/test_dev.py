"""`python -m jobnik_devtools.dev` where something is in its way."""

import os
import subprocess
import sys
from pathlib import Path

from tools.ports import two_free_ports


def test_a_manager_that_does_not_start_ends_it(tmp_path: Path) -> None:
    """What the manager says is shown, and that it has ended; no worker is started."""
    (tmp_path / "src").mkdir()
    (tmp_path / "file").touch()
    result = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-m", "jobnik_devtools.dev", "--port", str(two_free_ports()), "no_worker"],
        cwd=tmp_path,
        env=os.environ | {"JOBNIK_MANAGER_DATA_DIR": str(tmp_path / "file" / "data")},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert result.returncode == 1, result.stdout
    assert "manager | jobnik-manager: " in result.stdout
    assert "Choose another data folder" in result.stdout
    assert "The manager has ended (exit code 1): its lines above say why." in result.stdout
    assert "worker" not in result.stdout
