"""The one error of this package."""


class EmbeddedPostgresError(RuntimeError):
    """The embedded PostgreSQL cannot be used as it was asked for; the message says what to do."""
