"""Define the commands beside a run, one file or folder each."""
