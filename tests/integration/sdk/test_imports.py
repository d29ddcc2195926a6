"""Modules that importing the SDK loads."""

import subprocess
import sys


def test_imports_load_no_http_client() -> None:
    """Modules with definitions and handlers, which every handler process imports, do not load the HTTP client."""
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
