"""The fixtures of the integration tests' manager."""

from tests.integration.conftest import database_url, migrated, postgres, start_manager

__all__ = ["database_url", "migrated", "postgres", "start_manager"]
