"""One run from preflight to its last line."""
