"""The base of data sets, and the division of one into tasks."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class MammothDatasetWrapper(Dataset):
    def __init__(self, dataset):
        self.dataset = dataset
        assert hasattr(dataset, "data") and hasattr(dataset, "targets")

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, row):
        return self.dataset[row]


class ContinualDataset:
    def __init__(self, args):
        self.train_loader, self.test_loaders, self.c_task, self.args = None, [], -1, args
        if args.joint:
            self.N_CLASSES_PER_TASK, self.N_TASKS = self.N_CLASSES, 1
        if args.permute_classes and not hasattr(args, "class_order"):
            args.class_order = np.random.RandomState(args.seed).permutation(self.N_CLASSES)
        missing = [
            name
            for name in ("SETTING", "N_CLASSES_PER_TASK", "N_TASKS", "SIZE", "N_CLASSES")
            if not hasattr(self, name)
        ]
        assert not missing, missing

    def get_offsets(self, task=None):
        task = self.c_task if task is None else task
        sizes = self.N_CLASSES_PER_TASK
        sizes = [sizes] * self.N_TASKS if isinstance(sizes, int) else sizes
        return sum(sizes[:task]), sum(sizes[: task + 1])

    def get_class_names(self):
        raise NotImplementedError

    def get_prompt_templates(self):
        return ["a photo of a {}."]


def store_masked_loaders(train, test, setting):
    setting.c_task += 1
    assert hasattr(train, "not_aug_transform"), "a replay would take images of another layout"
    start, end = setting.get_offsets()
    loaders = []
    for part, shuffle in ((train, True), (test, False)):
        part.targets = np.array(part.targets)
        if setting.args.permute_classes:
            part.targets = setting.args.class_order[part.targets]
        rows = np.logical_and(part.targets >= start, part.targets < end)
        part.data, part.targets = part.data[rows], torch.tensor(part.targets[rows], dtype=torch.long)
        generator = None if setting.args.seed is None else torch.Generator().manual_seed(setting.args.seed)
        last = shuffle and setting.args.drop_last
        wrapped = MammothDatasetWrapper(part)
        loaders.append(
            DataLoader(wrapped, setting.args.batch_size, shuffle=shuffle, drop_last=last, generator=generator)
        )
    setting.train_loader = loaders[0]
    setting.test_loaders.append(loaders[1])
    return loaders


def fix_class_names_order(names, args):
    if args.permute_classes:
        return [names[np.where(args.class_order == label)[0][0]] for label in range(len(names))]
    return names
