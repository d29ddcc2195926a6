"""The manager's process: start and stop, the HTTP protocol, logs and traces."""
