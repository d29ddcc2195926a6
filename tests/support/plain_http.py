"""What a client of a plain HTTP server needs instead of certificates."""

import ssl
from typing import Final

NO_CERTIFICATES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no server. With it, a client does not read the system's certificates, which takes longer than most tests."""
