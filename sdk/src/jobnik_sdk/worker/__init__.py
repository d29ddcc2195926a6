"""The worker runtime: claim tasks, run handlers, renew leases, and report outcomes."""
