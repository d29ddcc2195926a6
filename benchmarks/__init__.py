"""The cost of the hot paths, side by side in one run: `make bench`."""
