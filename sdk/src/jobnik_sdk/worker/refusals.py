"""The warning that the manager refuses the worker's token."""

from typing import Final

from jobnik_sdk.errors import AccessError
from jobnik_sdk.observability.logging import LimitedWarning, RuntimeLogger

_ADVICE: Final = (
    "the worker keeps trying; check JOBNIK_TOKEN or JOBNIK_TOKEN_FILE, and the scopes and limits of the token "
    "(jobnik-manager token list)"
)

_refused: Final = LimitedWarning(RuntimeLogger(__name__), "token refused, retrying", interval_seconds=60.0)


def log_refusal(error: AccessError) -> None:
    """Log that the manager refused the token, once in a while for all parts of the worker."""
    _refused.log(status=error.status, code=error.code, reason=str(error), advice=_ADVICE)
