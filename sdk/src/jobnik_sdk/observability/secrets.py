"""Masks passwords in URLs, and tokens, in texts that people may read."""

import re
from typing import Final

MASK: Final = "***"

# The pattern begins with a literal, and each part has a maximum length, so a long text costs no more than a scan.
_PASSWORD: Final = re.compile(r"""(://[^\s/?#:@"'<>\\]{0,256}:)[^\s/?#"'<>\\]{1,1024}@""")
_TOKEN_PREFIX: Final = "jobnik_"  # noqa: S105 only the beginning
_TOKEN: Final = re.compile(r"jobnik_[0-9A-Za-z]{40,60}")
_USER_INFORMATION: Final = re.compile(r"^(.*?//|).*@", re.DOTALL)
_QUERY: Final = re.compile(r"([?#]).+", re.DOTALL)


def mask_secrets(text: str) -> str:
    """Return a text in which the passwords of all URLs, and all tokens of a manager, are replaced by `***`."""
    if _TOKEN_PREFIX in text:
        text = _TOKEN.sub(f"{_TOKEN_PREFIX}{MASK}", text)
    return _PASSWORD.sub(rf"\1{MASK}@", text) if "://" in text and "@" in text else text


def mask_url(url: str) -> str:
    """Return a URL, which may be invalid, without the user's name and password, query and fragment, if it has them."""
    return _QUERY.sub(rf"\1{MASK}", _USER_INFORMATION.sub(rf"\1{MASK}@", url))
