"""Carry out one run, from the first checks to the last line. Read ``runner.py`` first."""
