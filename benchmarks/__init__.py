"""Benchmarks of a checkout: ``python benchmarks/inversion.py``; they are not part of the installed package."""
