"""Define the data sets, one ``seq_*.py`` file each, and divide them into tasks.

Read ``continual_dataset.py`` first: it is the base class of every data set.
"""
