"""Maintenance: periodic work, done by one manager at a time."""
