"""The base of methods, with the wrappers that the loop calls."""

import inspect

import torch
from torch import nn
from utils.conf import get_device


class ContinualModel(nn.Module):
    @staticmethod
    def get_parser(parser):
        return parser

    def __init__(self, backbone, loss, args, transform, dataset=None):
        super().__init__()
        self.net, self.loss, self.args, self.transform, self.dataset = backbone, loss, args, transform, dataset
        self.num_classes, self.n_tasks, self._cpt = dataset.N_CLASSES, dataset.N_TASKS, dataset.N_CLASSES_PER_TASK
        self._current_task = 0
        self.opt = self.get_optimizer()
        self.device = get_device()
        if not self.NAME or not self.COMPATIBILITY:
            raise NotImplementedError("Please specify the name and the compatibility of the model.")

    current_task = property(lambda self: self._current_task)
    task_iteration = property(lambda self: self._task_iteration)
    epoch_iteration = property(lambda self: self._epoch_iteration)
    n_seen_classes = property(lambda self: getattr(self, "_n_seen_classes", -1))
    n_past_classes = property(lambda self: getattr(self, "_n_past_classes", -1))
    cpt = property(lambda self: self._cpt)

    def to(self, device):
        self.device = device
        return super().to(device)

    def get_parameters(self):
        return self.net.parameters()

    def get_optimizer(self, params=None, lr=None):
        params = list(self.get_parameters() if params is None else params)
        return torch.optim.SGD(params, lr=lr or self.args.lr) if params else None

    def get_debug_iters(self):
        return 5

    def begin_task(self, dataset):
        pass

    def end_task(self, dataset):
        pass

    def begin_epoch(self, epoch, dataset):
        pass

    def end_epoch(self, epoch, dataset):
        pass

    def forward(self, x):
        return self.net(x)

    def meta_begin_task(self, dataset):
        self._task_iteration = self._epoch_iteration = self._past_epoch = 0
        self._n_past_classes, self._n_seen_classes = dataset.get_offsets(self._current_task)
        if self.opt is not None:
            self.opt.zero_grad(set_to_none=True)
        self.opt = self.get_optimizer()
        self.begin_task(dataset)

    def meta_end_task(self, dataset):
        self.end_task(dataset)
        self._current_task += 1

    def meta_begin_epoch(self, epoch, dataset):
        self._epoch_iteration = 0
        self.begin_epoch(epoch, dataset)

    def meta_end_epoch(self, epoch, dataset):
        self.end_epoch(epoch, dataset)

    def meta_observe(self, *args, **kwargs):
        known = inspect.signature(self.observe).parameters
        found = self.observe(*args, **{name: value for name, value in kwargs.items() if name in known})
        self._task_iteration += 1
        self._epoch_iteration += 1
        return found["loss"] if isinstance(found, dict) else found
