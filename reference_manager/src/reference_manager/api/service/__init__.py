"""Liveness, readiness, metrics and capabilities."""
