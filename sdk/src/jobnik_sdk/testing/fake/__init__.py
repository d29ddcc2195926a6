"""A manager in memory, behind a transport: for tests that want no process and no database."""
