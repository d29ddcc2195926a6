"""Watches the files of a project for changes."""

import asyncio
from pathlib import Path
from typing import Final

from watchfiles import Change, DefaultFilter, awatch  # pyright: ignore[reportUnknownVariableType] it supports trio, too

from jobnik_devtools.dev.screen import Screen

_ENV: Final = ".env"


class Watcher:
    """Sets an event when files change.

    `worker_changed` is set by a change below src/ or in .env, `seed_changed` by a change in seed.py.
    """

    def __init__(self, project: Path, seed: Path, screen: Screen) -> None:
        self.worker_changed = asyncio.Event()
        self.seed_changed = asyncio.Event()
        self._project = project
        self._seed = seed
        self._screen = screen
        self._default_filter = DefaultFilter()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            await asyncio.gather(self._watch_sources(), self._watch_files())
        except (OSError, RuntimeError) as error:
            self._screen.error(f"Cannot watch for changes: {error}. Restart make dev after an edit.")

    async def _watch_sources(self) -> None:
        async for changes in awatch(self._project / "src", watch_filter=self.is_relevant):
            self._report(changes, self.worker_changed)

    async def _watch_files(self) -> None:
        # Their folder, since an editor may replace a file instead of writing to it.
        events = {self._project / _ENV: self.worker_changed, self._seed: self.seed_changed}
        paths = {str(path) for path in events}
        async for changes in awatch(self._project, watch_filter=lambda _, path: path in paths, recursive=False):
            for change in changes:
                self._report({change}, events[Path(change[1])])

    def is_relevant(self, change: Change, path: str) -> bool:
        """Return whether a change below src/ is an edit, not a file of Python or of an editor."""
        # Relative to the project, which may itself be below a folder with a name that the filter excludes.
        return self._default_filter(change, self._relative(Path(path)))

    def _report(self, changes: set[tuple[Change, str]], event: asyncio.Event) -> None:
        paths = {Path(path) for _, path in changes}
        # Temporary files of editors and formatters are gone by now. They are named only if there is nothing else.
        existing = {path for path in paths if path.exists()} or paths
        self._screen.info(f"{', '.join(sorted(map(self._relative, existing)))} changed")
        event.set()

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._project))
