"""The resource ``tasks``."""
