"""Make tables and pictures from the records of runs.

Read ``comparison.py`` first: it reads the records and groups them.
"""
