"""The worker: claims tasks, runs handlers, renews leases and reports outcomes."""
