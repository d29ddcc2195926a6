"""Benchmarks of the hot paths, which `make bench` compares within one run."""
