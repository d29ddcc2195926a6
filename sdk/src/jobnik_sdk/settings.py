"""`WorkerSettings` under the import path of projects rendered before 0.2; removed in 1.0.

Import it from `jobnik_sdk` instead. `make update` leaves a project's `settings.py` alone, so the old path has to work.
"""

from jobnik_sdk.service.settings import WorkerSettings

__all__ = ["WorkerSettings"]
