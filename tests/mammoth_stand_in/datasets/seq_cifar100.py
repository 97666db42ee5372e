"""Ten classes of noise around a colour each, under a name that ours has, too."""

import numpy as np
from PIL import Image
from torch.nn.functional import cross_entropy
from torchvision import transforms

from datasets.utils import set_default_from_args
from datasets.utils.continual_dataset import ContinualDataset, store_masked_loaders


class Noise:
    def __init__(self, count, seed, transform, train):
        random = np.random.RandomState(seed)
        colours = np.random.RandomState(0).randint(0, 200, (10, 1, 1, 3))
        self.targets = np.repeat(np.arange(10), count)
        self.data = (colours[self.targets] + random.randint(0, 56, (10 * count, 16, 16, 3))).astype(np.uint8)
        self.transform, self.not_aug_transform, self.train = transform, transforms.ToTensor(), train

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        image = Image.fromarray(self.data[row])
        item = self.transform(image), self.targets[row]
        return (*item, self.not_aug_transform(image)) if self.train else item


class SeqNoise(ContinualDataset):
    NAME = "seq-cifar100"
    SETTING = "class-il"
    N_CLASSES_PER_TASK, N_TASKS, N_CLASSES = 2, 5, 10
    SIZE = (16, 16)
    MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    TRANSFORM = transforms.Compose(
        [transforms.RandomCrop(16, padding=2), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )

    def get_data_loaders(self):
        plain = transforms.Compose([transforms.ToTensor(), self.get_normalization_transform()])
        return store_masked_loaders(Noise(40, 1, self.TRANSFORM, True), Noise(10, 2, plain, False), self)

    @staticmethod
    def get_transform():
        return transforms.Compose([transforms.ToPILImage(), SeqNoise.TRANSFORM])

    @staticmethod
    def get_normalization_transform():
        return transforms.Normalize(SeqNoise.MEAN, SeqNoise.STD)

    @staticmethod
    def get_loss():
        return cross_entropy

    @set_default_from_args("backbone")
    def get_backbone():
        return "resnet32"

    @set_default_from_args("n_epochs")
    def get_epochs():
        return 2

    @set_default_from_args("batch_size")
    def get_batch_size():
        return 32

    @set_default_from_args("lr_scheduler")
    def get_scheduler_name():
        return "multisteplr"

    @set_default_from_args("lr_milestones")
    def get_milestones():
        return [1]
