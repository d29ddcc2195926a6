"""The resource ``stages``."""
