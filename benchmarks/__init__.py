"""Benchmarks of a checkout, no part of the package: ``python benchmarks/inversion.py``."""
