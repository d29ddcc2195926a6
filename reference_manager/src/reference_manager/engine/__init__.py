"""The engine: every change to jobs, stages and tasks, together with its consequences."""
