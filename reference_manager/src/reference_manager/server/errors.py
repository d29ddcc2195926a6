"""Errors of the manager process."""


class StartError(Exception):
    """The manager cannot start; the message says what to do."""


class InvalidSettingError(StartError):
    """A setting cannot be used; the message names it."""
