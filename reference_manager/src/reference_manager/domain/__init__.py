"""The rules of jobs, stages and tasks: pure data and functions, without I/O, clock or generated ids."""
