"""The producer for code without an event loop."""
