"""The commands beside a run, one file or folder each, and the index that names them."""
