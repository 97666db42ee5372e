"""Benchmarks: splits into tasks, class orders, augmentation and where the data lives, one ``seq_*.py`` file per data set."""
