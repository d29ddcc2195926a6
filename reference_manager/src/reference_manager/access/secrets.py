"""The text of a token: the prefix ``jobnik_``, 32 random bytes, and a checksum, as letters and digits.

The prefix lets secret scanners find tokens. The checksum detects other texts, and tokens that were cut off.
"""

import re
import secrets
from hashlib import sha256
from typing import Final
from zlib import crc32

PREFIX: Final = "jobnik_"
PATTERN: Final = r"jobnik_[0-9A-Za-z]{49}"
"""The regular expression for secret scanners."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BYTES: Final = 32
_RANDOM_DIGITS: Final = 43
_CHECKSUM_DIGITS: Final = 6
LENGTH: Final = len(PREFIX) + _RANDOM_DIGITS + _CHECKSUM_DIGITS
MASK: Final = f"{PREFIX}***"

_TOKEN: Final = re.compile(PATTERN)
_TOKEN_OR_PART: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]+")


def generate_secret() -> str:
    """Return a new token."""
    body = PREFIX + _digits(int.from_bytes(secrets.token_bytes(_RANDOM_BYTES)), _RANDOM_DIGITS)
    return body + _checksum(body)


def is_secret(text: str) -> bool:
    """Return whether a text has the form and the checksum of a token."""
    return bool(_TOKEN.fullmatch(text)) and _checksum(text[:-_CHECKSUM_DIGITS]) == text[-_CHECKSUM_DIGITS:]


def digest(secret: bytes) -> bytes:
    """Return what the database stores instead of a token."""
    return sha256(secret).digest()


def mask_tokens(text: str) -> str:
    """Return a text without the tokens in it."""
    return _TOKEN_OR_PART.sub(MASK, text)


def _checksum(body: str) -> str:
    return _digits(crc32(body.encode()), _CHECKSUM_DIGITS)


def _digits(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
