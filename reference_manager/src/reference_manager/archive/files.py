"""The files of an archive: JSON lines, compressed with gzip. Neither writing nor reading one keeps it in memory."""

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import IO, Final, NamedTuple, Self

from reference_manager.archive.errors import ArchiveError
from reference_manager.archive.stores import CHUNK, Archive, translated

GZIP: Final = 16 + zlib.MAX_WBITS
LEVEL: Final = 6


class Summary(NamedTuple):
    """What a file contains."""

    lines: int
    sha256: str
    """Of the compressed file."""


class ArchiveFile:
    """A new file of an archive, which disappears at the end of the ``async with`` block unless it was stored.

    Args:
        archive: The archive.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP)
        self._hash = hashlib.sha256()
        self._lines = 0

    async def __aenter__(self) -> Self:
        spool = self._archive.spool
        with translated(spool):
            self._file: IO[bytes] = NamedTemporaryFile(  # noqa: SIM115 - closed by __aexit__
                dir=spool, prefix=".jobnik-", suffix=".partial", delete=False
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        await asyncio.to_thread(Path(self._file.name).unlink, missing_ok=True)

    async def write(self, json: str) -> None:
        """Write a part of a line. Line breaks, which JSON has only between its tokens, become spaces."""
        await asyncio.to_thread(self._write, json)

    async def end_line(self) -> None:
        """End the line."""
        self._lines += 1
        self._keep(self._compressor.compress(b"\n"))

    def _write(self, json: str) -> None:
        self._keep(self._compressor.compress(json.replace("\n", " ").replace("\r", " ").encode()))

    def _keep(self, compressed: bytes) -> None:
        self._hash.update(compressed)
        with translated(Path(self._file.name)):
            self._file.write(compressed)

    async def store(self, name: str) -> None:
        """Store the file under a new name, read it back, and compare it.

        Raises:
            ArchiveError: The file is not stored, or is not what was written.
        """
        self._keep(self._compressor.flush())
        with translated(Path(self._file.name)):
            self._file.flush()
        await self._archive.put(name, Path(self._file.name))
        written, found = Summary(self._lines, self._hash.hexdigest()), await summarize(self._archive, name)
        if found != written:
            raise ArchiveError(f"{name}: read back {found}, but {written} was written")


async def summarize(archive: Archive, name: str) -> Summary:
    """Read a file, and return what it contains. Raises ArchiveError."""
    digest = hashlib.sha256()

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in archive.read(name):
            digest.update(chunk)
            yield chunk

    lines = 0
    async for text in _decompressed(name, chunks()):
        lines += text.count(b"\n")
    return Summary(lines, digest.hexdigest())


async def read_lines(archive: Archive, name: str) -> AsyncIterator[bytes]:
    """Read the decompressed text of a file in chunks. Raises ArchiveError."""
    async for text in _decompressed(name, archive.read(name)):
        yield text


async def _decompressed(name: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    decompressor = zlib.decompressobj(GZIP)
    try:
        async for chunk in chunks:
            text = await asyncio.to_thread(decompressor.decompress, chunk, CHUNK)
            while text:
                yield text
                text = await asyncio.to_thread(decompressor.decompress, decompressor.unconsumed_tail, CHUNK)
    except zlib.error as error:
        raise ArchiveError(f"{name}: not a gzip file: {error}") from error
    if not decompressor.eof:
        raise ArchiveError(f"{name}: the file is incomplete")
