"""A worker as a process: settings, logging, tracing, probes, signals and exit codes."""
