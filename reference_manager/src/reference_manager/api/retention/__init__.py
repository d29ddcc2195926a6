"""Retention: how long ended jobs are kept."""
