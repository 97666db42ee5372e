"""Define the data sets, one ``seq_*.py`` file each, and divide them into tasks.

Read ``dataset_outline.py`` and ``continual_dataset.py`` first: the base classes of every data set.
"""
