"""Use the network that a run has trained: load, predict, evaluate, export.

Read ``loading.py`` first, then ``trained_model.py``.
"""
