"""Errors of archives."""


class ArchiveError(Exception):
    """An archive cannot be used, or a file in it is not what was written; the message says why."""
