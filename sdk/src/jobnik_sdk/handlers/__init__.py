"""A handler, and where it runs: on the event loop, in a thread, or in a process."""
