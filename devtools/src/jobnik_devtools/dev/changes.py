"""What changes in a project while it runs."""

import asyncio
from pathlib import Path
from typing import Final

from watchfiles import Change, DefaultFilter, awatch  # pyright: ignore[reportUnknownVariableType] it knows trio, too

from jobnik_devtools.dev.screen import Screen

_ENV: Final = ".env"


class Changes:
    """Sets `worker` when something below src/ or .env has changed, `seed` when that program has."""

    def __init__(self, project: Path, seed: Path, screen: Screen) -> None:
        self.worker = asyncio.Event()
        self.seed = asyncio.Event()
        self._project = project
        self._seed = seed
        self._screen = screen
        self._usual = DefaultFilter()

    async def watch(self) -> None:
        """Watch until it is cancelled."""
        try:
            await asyncio.gather(self._watch_sources(), self._watch_files())
        except (OSError, RuntimeError) as error:
            self._screen.trouble(f"Changes are not followed: {error}")

    async def _watch_sources(self) -> None:
        async for changes in awatch(self._project / "src", watch_filter=self.counts):
            self._note(changes, self.worker)

    async def _watch_files(self) -> None:
        # Their folder, since an editor may put a new file in the place of the old one.
        events = {self._project / _ENV: self.worker, self._seed: self.seed}
        ours = {str(path) for path in events}
        async for changes in awatch(self._project, watch_filter=lambda _, path: path in ours, recursive=False):
            for change in changes:
                self._note({change}, events[Path(change[1])])

    def counts(self, change: Change, path: str) -> bool:
        """Tell whether a change below src/ is somebody's, not Python's or an editor's own."""
        # Where the project itself lies does not: it may be below a folder with one of the names that are left out.
        return self._usual(change, self._short(Path(path)))

    def _note(self, changes: set[tuple[Change, str]], event: asyncio.Event) -> None:
        paths = {Path(path) for _, path in changes}
        # Editors and formatters have files of their own there for a moment, which nobody wants to hear of.
        named = {path for path in paths if path.exists()} or paths
        self._screen.say(f"{', '.join(sorted(map(self._short, named)))} changed")
        event.set()

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self._project))
