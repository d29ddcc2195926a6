"""Claims and reports, in batches, and notifications of new work."""
