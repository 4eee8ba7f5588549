"""Benchmarks that set Sluice beside its peers in one run: ``python -m bench NAME --json``."""
