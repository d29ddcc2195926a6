"""Cursors: a sort key of one list, as text that fits into a URL.

A cursor is not signed, because it grants nothing beyond its list. A checksum detects invented cursors and cursors of
another list. Every manager on the same database accepts the cursors of the others.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from uuid import UUID

from reference_manager.domain.commands import AgeKey, Key, KeyT, SerialKey, StageKey, WorkerKey

_CHECKSUM_BYTES = 8
_TWO_NUMBERS = Struct(">qq")
_STAGE = Struct(">16sq")
MAX_CURSOR_LENGTH = 1100
"""The length of the cursor of a worker whose id has 200 characters of four bytes each."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode_cursor(key: Key, listing: str) -> str:
    """Encode a sort key.

    Args:
        key: The sort key after which the next page begins.
        listing: The identity of the list: its path, its filters and its order.
    """
    packed = _packed(key)
    checksum = blake2b(listing.encode() + packed, digest_size=_CHECKSUM_BYTES).digest()
    return urlsafe_b64encode(checksum + packed).rstrip(b"=").decode()


def decode_cursor(cursor: str, listing: str, key_type: type[KeyT]) -> KeyT:
    """Decode a cursor.

    Args:
        cursor: The text from the client.
        listing: The identity of the list, as for ``encode_cursor``.
        key_type: The type of the sort keys of this list.

    Raises:
        ValueError: This is not a cursor of this list.
    """
    try:
        packed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))[_CHECKSUM_BYTES:]
        key = _unpacked(packed, key_type)
    except (ValueError, OverflowError, StructError):
        key = None
    if not isinstance(key, key_type) or encode_cursor(key, listing) != cursor:
        raise ValueError("is not a cursor of this list: use the Link header unchanged, or start again without a cursor")
    return key


def _packed(key: Key) -> bytes:
    match key:
        case AgeKey(created_at, seq):
            return _TWO_NUMBERS.pack((created_at - _EPOCH) // _MICROSECOND, seq)
        case StageKey(job_id, position):
            return _STAGE.pack(job_id.bytes, position)
        case SerialKey(serial, place):
            return _TWO_NUMBERS.pack(serial, place)
        case WorkerKey(worker_id):
            return worker_id.encode()


def _unpacked(packed: bytes, key_type: type[Key]) -> Key:
    if key_type is WorkerKey:
        return WorkerKey(packed.decode(), 0)
    if key_type is StageKey:
        job_id, position = _STAGE.unpack(packed)
        return StageKey(UUID(bytes=job_id), position)
    first, second = _TWO_NUMBERS.unpack(packed)
    if key_type is SerialKey:
        return SerialKey(first, second)
    return AgeKey(_EPOCH + timedelta(microseconds=first), second)
