"""What importing the SDK costs."""

import subprocess
import sys


def test_imports_stay_light() -> None:
    """A module of definitions or handlers, which each handler's process imports, brings no HTTP client along."""
    program = """if True:
        import sys
        import jobnik_sdk
        assert not {"pydantic", "httpx2", "structlog", "prometheus_client"} & sys.modules.keys()
        from jobnik_sdk import JobType, StageType
        assert not {"httpx2", "structlog", "prometheus_client"} & sys.modules.keys()
        from jobnik_sdk import TaskContext
        assert not {"httpx2", "prometheus_client"} & sys.modules.keys()
    """
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 our own program
