"""Development tools for Jobnik workers: `make dev`, `make doctor`, and `make update`."""
