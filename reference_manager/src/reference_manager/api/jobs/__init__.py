"""The resource ``jobs``."""
