"""Run a worker as a process: settings, signals, probes, and shutdown."""
