"""The manager of the integration tests, and how long a long run is."""

from hypothesis import settings

from tests.integration.conftest import manager_url, migrated, postgres

__all__ = ["manager_url", "migrated", "postgres"]

settings.register_profile("long", deadline=None, stateful_step_count=200, max_examples=500)
