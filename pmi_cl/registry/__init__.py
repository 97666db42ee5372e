"""Find methods, data sets and backbones by reading source text, so that ``--help`` and ``--list`` need no torch."""
