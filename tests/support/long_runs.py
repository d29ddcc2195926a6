"""Long runs of the tests that try random examples: ``--hypothesis-profile=long --timeout=1800``.

By default, these tests try few examples, the same ones in every run. A long run tries many, different ones each time.
"""

from hypothesis import HealthCheck, settings

FAST_ENOUGH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
"""Checks of how quickly examples are generated: this takes seconds for the schemas of the protocol."""

_NAME = "long"


def register() -> None:
    """Register the profile of long runs."""
    settings.register_profile(
        _NAME,
        deadline=None,
        max_examples=100,
        stateful_step_count=200,
        suppress_health_check=FAST_ENOUGH,
    )


def is_long() -> bool:
    """Return whether this is a long run."""
    return settings.get_current_profile_name() == _NAME
