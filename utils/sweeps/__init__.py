"""Plan runs that are to be compared, and carry them out in processes side by side."""
