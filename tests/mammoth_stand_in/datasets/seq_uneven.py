"""The same images in tasks of different sizes."""

from datasets.seq_cifar100 import SeqNoise
from datasets.utils import set_default_from_args


class SeqUneven(SeqNoise):
    NAME = "seq-uneven"
    N_CLASSES_PER_TASK, N_TASKS = [4, 3, 2, 1], 4

    @set_default_from_args("n_epochs")
    def get_epochs():
        return 2

    @set_default_from_args("batch_size")
    def get_batch_size():
        return 64
