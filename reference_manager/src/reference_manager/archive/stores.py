"""Where archives are: a folder, or a bucket of an S3-compatible service."""

import asyncio
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from reference_manager.archive.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Generator

    from obstore.store import S3Store

CHUNK: Final = 1024 * 1024
"""Bytes that are read at once."""
SUFFIX: Final = ".jsonl.gz"


class Archive(ABC):
    """A place for files. Their names have no ``..``, and end with ``SUFFIX``."""

    @property
    @abstractmethod
    def spool(self) -> Path:
        """The folder in which a file is written before it is put into the archive."""

    @abstractmethod
    async def put(self, name: str, file: Path) -> None:
        """Store a file, whose name is new. When this returns, the file survives a crash of this machine.

        Raises:
            ArchiveError: The file may not be stored.
        """

    @abstractmethod
    def read(self, name: str) -> AsyncIterator[bytes]:
        """Read a file in chunks. Raises ArchiveError."""

    @abstractmethod
    def names(self) -> AsyncIterator[str]:
        """List the names of the files. Raises ArchiveError."""


class Folder(Archive):
    """A folder of this machine, or of a file system that is mounted there.

    Args:
        path: The folder; it is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def spool(self) -> Path:
        """The folder itself, so that a file is only renamed."""
        with translated(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
        return self._path

    async def put(self, name: str, file: Path) -> None:
        """Rename the file, after it has reached the disk, and wait until its new name has reached it."""
        await asyncio.to_thread(self._put, name, file)

    def _put(self, name: str, file: Path) -> None:
        target = self._path / name
        with translated(target):
            with file.open("rb") as written:
                os.fsync(written.fileno())
            missing = [folder for folder in target.parents if not folder.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
            for folder in (target.parent, *(folder.parent for folder in missing)):
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    async def read(self, name: str) -> AsyncGenerator[bytes]:
        """Read a file in chunks."""
        with translated(self._path / name):
            opened = await asyncio.to_thread((self._path / name).open, "rb")
            with opened:
                while chunk := await asyncio.to_thread(opened.read, CHUNK):
                    yield chunk

    async def names(self) -> AsyncGenerator[str]:
        """List the names, by path."""
        for file in await asyncio.to_thread(lambda: sorted(self._path.rglob(f"*{SUFFIX}"))):
            yield str(file.relative_to(self._path))


class Bucket(Archive):
    """A bucket of an S3-compatible service. Credentials, region and endpoint are in the variables ``AWS_…``.

    It uses the blocking interface of the client, in threads: a process that ends soon after a call of the asynchronous
    interface may be aborted.

    Args:
        store: The bucket, with its prefix.
    """

    def __init__(self, store: "S3Store") -> None:
        self._store = store

    @property
    def spool(self) -> Path:
        """The folder for temporary files."""
        return Path(tempfile.gettempdir())

    async def put(self, name: str, file: Path) -> None:
        """Upload the file, in parts if it is large."""
        with _translated_from_bucket(name):
            await asyncio.to_thread(self._store.put, name, file)

    async def read(self, name: str) -> AsyncGenerator[bytes]:
        """Download a file in chunks."""
        with _translated_from_bucket(name):
            found = await asyncio.to_thread(self._store.get, name)
            chunks = iter(found.stream(min_chunk_size=CHUNK))
            while chunk := await asyncio.to_thread(next, chunks, None):
                yield bytes(chunk)

    async def names(self) -> AsyncGenerator[str]:
        """List the names."""
        with _translated_from_bucket("the list of files"):
            pages = iter(self._store.list())  # pyright: ignore[reportUnknownMemberType] - returns Arrow, too
            while page := await asyncio.to_thread(next, pages, None):
                for found in page:
                    yield found["path"]


def open_archive(url: str) -> Archive:
    """Return the archive with this URL: ``file:///folder`` or ``s3://bucket/prefix``.

    Raises:
        ArchiveError: The URL cannot be used, or a package is missing.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Folder(Path(unquote(parts.path)))
    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - an optional dependency
        from obstore.store import S3Store  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ArchiveError("a bucket needs the extra s3: pip install 'jobnik-reference-manager[s3]'") from error
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    try:
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            client_options={"allow_http": endpoint.startswith("http://"), "timeout": "60s"},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=30)},
        )
    except BaseError as error:
        raise ArchiveError(f"{url}: {error}") from error
    return Bucket(store)


@contextmanager
def translated(path: Path) -> "Generator[None]":
    """Raise an error of the system, in a `with` block, as an ArchiveError that names the path."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(f"{path}: {error.strerror or error}") from error


@contextmanager
def _translated_from_bucket(name: str) -> "Generator[None]":
    from obstore.exceptions import BaseError  # noqa: PLC0415 - an optional dependency

    try:
        yield
    except (BaseError, OSError) as error:
        raise ArchiveError(f"{name}: {str(error).partition(chr(10))[0]}") from error
