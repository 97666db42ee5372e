"""Define ``pmi-cl invert``: pictures of a text."""
