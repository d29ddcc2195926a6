"""The manager that `jobnik_sdk.testing` starts: its command and its environment."""

import json
import sys
from pathlib import Path

import pytest
from jobnik_sdk.testing import process

MANAGER = """#!{python}
import json, os, signal
variables = [name for name in os.environ if name.startswith("JOBNIK_MANAGER_")]
print(json.dumps({{"event": "manager is ready", "url": json.dumps(variables)}}), flush=True)
signal.pause()
"""


def test_the_developers_settings_do_not_reach_the_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database URL in the environment belongs to another manager, whose data the tests must not touch."""
    program = tmp_path / "jobnik-manager"
    program.write_text(MANAGER.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(process, "manager_command", lambda: str(program))
    monkeypatch.setenv("JOBNIK_MANAGER_DATABASE_URL", "postgresql://production/jobs")
    monkeypatch.setenv("JOBNIK_MANAGER_LOG_LEVEL", "ERROR")

    with process.running_manager() as url:
        assert json.loads(url) == []
