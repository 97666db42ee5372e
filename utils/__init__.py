"""Run, record and report what the methods do: everything behind the command line."""
