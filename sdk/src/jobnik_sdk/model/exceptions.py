"""The base of the error tree, and the errors that the model itself raises. `jobnik_sdk.errors` has the whole tree."""


class JobnikError(Exception):
    """Base class of all errors that the SDK raises."""


class ConfigurationError(JobnikError, ValueError):
    """A name, an address or an option cannot work: correct it where it is written."""


class InvalidPayloadError(JobnikError, ValueError):
    """A payload does not fit its model and was not sent: correct `field`, a path such as `tasks[2].data.size`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
