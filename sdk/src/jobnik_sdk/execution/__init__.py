"""Runs handlers: as coroutines, in threads, or in processes."""
