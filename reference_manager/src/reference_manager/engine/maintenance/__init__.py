"""Periodic work of the managers, which take turns at it."""
