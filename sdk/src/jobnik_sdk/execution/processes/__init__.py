"""Run handlers in child processes."""
