"""The runtime of a worker: claim while slots are free, run handlers, keep leases alive, report, drain."""
