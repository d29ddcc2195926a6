"""A manager in memory, behind a transport: for tests without a process or a database."""
