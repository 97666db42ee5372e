"""Resolve the values of a run from the command line, presets and earlier records.

Read ``command_line.py`` first.
"""
