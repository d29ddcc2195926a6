"""Text that somebody else wrote, made fit for the manager."""


def fit(text: str, longest: int) -> str:
    """Return `text` with `longest` characters at most, and without what a database does not store."""
    return text[:longest].replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
