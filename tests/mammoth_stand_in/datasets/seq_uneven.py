"""The same images in tasks of different sizes."""

from datasets.seq_cifar100 import SeqNoise


class SeqUneven(SeqNoise):
    NAME = "seq-uneven"
    N_CLASSES_PER_TASK, N_TASKS = [4, 3, 2, 1], 4
