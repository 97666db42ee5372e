"""Define the continual-learning methods, one in a file, and what they share.

Read ``continual_model.py`` first: it is the base class of every method.
"""
