"""What tests of workers and producers are written with."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobnik_sdk.testing.fake.manager import FakeManager, RecordedTask

__all__ = ["FakeManager", "RecordedTask"]

if not TYPE_CHECKING:  # as in jobnik_sdk: names are loaded when first used
    _HOME_OF: Final = {"FakeManager": "fake.manager", "RecordedTask": "fake.manager"}

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
