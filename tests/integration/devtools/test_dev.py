"""`python -m jobnik_devtools.dev` when the manager does not start."""

import os
import subprocess
import sys
from pathlib import Path

from tools.ports import free_port


def test_it_ends_when_the_manager_does_not_start(tmp_path: Path) -> None:
    """The manager's error is shown, and no worker starts."""
    (tmp_path / "src").mkdir()
    (tmp_path / "file").touch()
    result = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-m", "jobnik_devtools.dev", "--port", str(free_port(2)), "no_worker"],
        cwd=tmp_path,
        env=os.environ | {"JOBNIK_MANAGER_DATA_DIR": str(tmp_path / "file" / "data")},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert result.returncode == 1, result.stdout
    assert "manager | jobnik-manager: " in result.stdout
    assert "Choose another data folder" in result.stdout
    assert "The manager has ended (exit code 1). Its last lines above show the reason." in result.stdout
    assert "worker" not in result.stdout
