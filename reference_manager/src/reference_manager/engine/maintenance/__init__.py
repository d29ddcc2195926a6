"""What a manager does of its own accord, in turns with the managers beside it."""
