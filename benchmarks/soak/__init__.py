"""Run two managers at half of the load that they can carry, and sample what must not grow."""
