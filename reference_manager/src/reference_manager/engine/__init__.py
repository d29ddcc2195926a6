"""What the manager does: every change to jobs, stages and tasks, together with what follows from it."""
