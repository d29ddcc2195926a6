"""Logging, metrics, tracing, and health probes."""
