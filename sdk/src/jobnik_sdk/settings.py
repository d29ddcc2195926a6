"""An alias of `jobnik_sdk.WorkerSettings` for projects rendered before 0.2; it will be removed in 1.0.

`make update` does not change a project's `settings.py`, so the old import path has to keep working.
"""

from jobnik_sdk.worker.settings import WorkerSettings

__all__ = ["WorkerSettings"]
