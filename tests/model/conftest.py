"""The fixtures of the integration tests' manager, and the settings of a long run."""

from hypothesis import settings

from tests.integration.conftest import database_url, migrated, postgres, start_manager

__all__ = ["database_url", "migrated", "postgres", "start_manager"]

settings.register_profile("long", deadline=None, stateful_step_count=200, max_examples=100)
