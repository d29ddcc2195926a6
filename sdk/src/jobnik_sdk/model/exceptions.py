"""The base of the error tree, and the errors that the model raises. `jobnik_sdk.errors` has the whole tree."""


class JobnikError(Exception):
    """Base class of all errors that the SDK raises."""


class ConfigurationError(JobnikError, ValueError):
    """A name, an address or an option is invalid. Correct it where it is written; the message names it."""


class InvalidPayloadError(JobnikError, ValueError):
    """A payload or an option does not fit its model. Nothing was sent.

    Attributes:
        field: The path of the invalid field, such as `tasks[2].data.size`.
        reason: What is wrong with it.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
