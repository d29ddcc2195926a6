"""Jobs, stages, tasks and their history."""
