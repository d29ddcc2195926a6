"""`make dev` of a rendered worker: runs a manager, the worker and a first job, and restarts what you edit."""
