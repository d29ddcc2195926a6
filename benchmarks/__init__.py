"""What the hot paths cost, side by side in one run: `make bench`."""
