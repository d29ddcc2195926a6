"""Attempts at tasks, and the changes of status of jobs, stages and tasks."""
