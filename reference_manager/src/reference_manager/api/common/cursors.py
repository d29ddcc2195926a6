"""Cursors: a place in one list, as a word that fits into a URL.

A cursor grants nothing that its list does not, so it is not signed. A checksum tells those that were made up, and those
of another list. Any manager on the same database understands them.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from struct import Struct
from uuid import UUID

from reference_manager.domain.requests import AgePlace, PlaceT, StagePlace

_CHECKSUM_BYTES = 8
_AGE = Struct(">qq")
_STAGE = Struct(">16sq")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode_cursor(place: AgePlace | StagePlace, listing: str) -> str:
    """A cursor for this place.

    Args:
        place: Behind which to go on.
        listing: What tells this list from others: its path and its filters.
    """
    packed = _packed(place)
    checksum = blake2b(listing.encode() + packed, digest_size=_CHECKSUM_BYTES).digest()
    return urlsafe_b64encode(checksum + packed).rstrip(b"=").decode()


def decode_cursor(cursor: str, listing: str, kind: type[PlaceT]) -> PlaceT:
    """The place that a cursor stands for.

    Args:
        cursor: What a client sent.
        listing: As it was encoded with.
        kind: What a place in this list is made of.

    Raises:
        ValueError: It is no cursor of this list.
    """
    try:
        place = _unpacked(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))[_CHECKSUM_BYTES:])
    except (ValueError, OverflowError):
        place = None
    if not isinstance(place, kind) or encode_cursor(place, listing) != cursor:
        raise ValueError("is none of this list: follow the Link header as it is, or begin again without it")
    return place


def _packed(place: AgePlace | StagePlace) -> bytes:
    match place:
        case AgePlace(created_at, seq):
            return _AGE.pack((created_at - _EPOCH) // _MICROSECOND, seq)
        case StagePlace(job_id, position):
            return _STAGE.pack(job_id.bytes, position)


def _unpacked(packed: bytes) -> AgePlace | StagePlace | None:
    if len(packed) == _AGE.size:
        microseconds, seq = _AGE.unpack(packed)
        return AgePlace(_EPOCH + timedelta(microseconds=microseconds), seq)
    if len(packed) == _STAGE.size:
        job_id, position = _STAGE.unpack(packed)
        return StagePlace(UUID(bytes=job_id), position)
    return None
