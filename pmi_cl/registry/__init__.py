"""Find methods, data sets and backbones without importing them. Read ``catalogue.py`` first.

Their source text is read, so that ``--help`` and ``--list`` need no torch.
"""
