"""Tools for the tests of workers and producers. A worker in production does not load them.

`context_for` and `run_handler` test handlers, `FakeManager` is a manager in memory, `opened` creates the worker of a
container, and `work_off` and `working` run workers. Pytest finds the fixtures `jobnik_manager` and `fake_manager`
automatically.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobnik_sdk.testing.contexts import RecordingContext, context_for
    from jobnik_sdk.testing.fake.manager import FakeManager, RecordedTask
    from jobnik_sdk.testing.process import running_manager
    from jobnik_sdk.testing.running import HandlerResult, opened, run_handler, work_off, working

__all__ = [
    "FakeManager",
    "HandlerResult",
    "RecordedTask",
    "RecordingContext",
    "context_for",
    "opened",
    "run_handler",
    "running_manager",
    "work_off",
    "working",
]

if not TYPE_CHECKING:  # as in jobnik_sdk, each name is loaded at its first use
    _HOMES: Final = {
        "contexts": ["RecordingContext", "context_for"],
        "fake.manager": ["FakeManager", "RecordedTask"],
        "process": ["running_manager"],
        "running": ["HandlerResult", "opened", "run_handler", "work_off", "working"],
    }
    _HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
