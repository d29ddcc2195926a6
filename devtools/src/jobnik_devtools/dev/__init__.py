"""`make dev` of a rendered worker: a manager, the worker, which follows every edit, and a first job."""
