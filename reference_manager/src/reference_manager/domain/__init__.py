"""What a job, a stage and a task may do: pure data and functions, without input, output, clock or ids."""
