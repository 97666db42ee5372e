"""Define the base of every method.

It has a network with a head per task, the counters that Mammoth's users know, and a state that is
complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pmi_cl.errors import UserError
from pmi_cl.machine.state_fields import load_optimizer, whole_field
from pmi_cl.models.host import Host, NullHost
from pmi_cl.models.network_checks import check_network, check_outline
from pmi_cl.models.training.momentum_sgd import MomentumSGD
from pmi_cl.models.training.options import TrainingOptions
from pmi_cl.models.training.schedules import milestone_epochs
from pmi_cl.options import select
from pmi_cl.seeding import seeded

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset
    from pmi_cl.models.run_outline import RunOutline


class ContinualModel(nn.Module):
    """A method.

    For each task the runner calls ``begin_task``, then for each epoch ``begin_epoch``, ``observe``
    for each batch and ``end_epoch``, then ``end_task``. A subclass sets ``NAME`` and ``Options``,
    and overrides :meth:`observe` and what else it needs. What must survive an interruption goes
    into :meth:`state` and comes back in :meth:`load_state`.

    Attributes:
        net: the network. Its head has grown by the task's classes before ``begin_task`` is called.
        loss: the loss on logits and labels.
        opt: the optimiser, rebuilt for each task.
        args: every option of the run, flat.
        options: the options of the method, typed.
        transform: (images, generator) to augmented images, for methods that augment by themselves.
        dataset: the data set.
        host: progress, events, pictures, places to stop.
    """

    NAME = ""
    COMPATIBILITY: ClassVar[tuple[str, ...]] = ("class-il", "task-il")
    NAMES_UNSEEN = False  # True: every_class() recognises classes that no task has shown yet
    JOINT = False  # True: all tasks are shown at once, as one
    KEEPS_STATISTICS = False  # True: scores() are those of class statistics, too
    KEEPS_IMAGES = False  # True: real images of earlier tasks are stored (exemplars)
    NEEDS_STATISTICS = False  # True: it compares with the running statistics of BatchNorms
    STATISTICS_WEIGHT = ""  # the option that weighs them, if there is one: 0 needs none
    OUTPUTS_PER_CLASS = 1  # outputs of the head for each class; forward() returns one of them
    EVALUATION_BATCH = 500  # images that are evaluated together; only memory depends on it
    Options: type = TrainingOptions

    def __init__(
        self,
        backbone: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        args: SimpleNamespace,
        transform: Callable[..., Tensor],
        dataset: ContinualDataset,
    ) -> None:
        super().__init__()
        self.net: Any = backbone
        self.loss, self.args, self.transform, self.dataset = loss, args, transform, dataset
        self.options: Any = select(type(self).Options, vars(args))
        self.device = dataset.device
        self.net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.host: Host = NullHost()
        self.current_task = 0
        self.opt: torch.optim.Optimizer | None = None

    @classmethod
    def check(cls, args: SimpleNamespace, outline: RunOutline) -> None:
        """Refuse values that do not go together, before anything is built or written.

        Raises:
            UserError: names them.
        """
        milestones = list(getattr(args, "lr_milestones", ()))
        if milestones != sorted(milestones):
            raise UserError(f"--lr_milestones {','.join(map(str, milestones))}: give them in rising order")
        check_outline(cls, args, outline.network, outline.image_size)

    def check_data(self, dataset: ContinualDataset) -> None:
        """Refuse a network without the statistics that the method needs, before it trains.

        A method may refuse training images, too: those of all tasks, or those of one.

        Raises:
            UserError: says why.
        """
        check_network(self, self.args, self.net)

    @classmethod
    def samples_mib(cls, args: SimpleNamespace, outline: RunOutline) -> float:
        """Return the most that synthetic samples take of the memory and of a checkpoint, in MiB."""
        return 0.0

    def replay_samples(self) -> int:
        """Return how many synthetic samples the method makes for the current task."""
        return 0

    @property
    def cpt(self) -> int:
        """Return the number of classes of the current task."""
        return self.dataset.tasks.sizes[self.current_task]

    @property
    def n_past_classes(self) -> int:
        """Return the number of classes of the tasks before the current one."""
        return self.dataset.tasks.past(self.current_task)

    @property
    def n_seen_classes(self) -> int:
        """Return the number of classes of the tasks up to the current one."""
        return self.dataset.tasks.seen(self.current_task)

    def n_epochs(self) -> int:
        """Return the number of epochs of the current task."""
        return int(self.options.n_epochs)

    def steps_per_epoch(self) -> int:
        """Return the number of steps of an epoch of the current task."""
        return self.dataset.steps_per_epoch(self.current_task, self.options.batch_size)

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Tensor, Any]]:
        """Yield the arguments of :meth:`observe` in an epoch of the current task.

        They are (inputs, labels, not_aug_inputs) of the data set's training images. A method that
        learns from something else yields that. The first step is ``start``.
        """
        return self.dataset.train_batches(self.current_task, epoch, self.options.batch_size, start=start)

    def grow(self) -> None:
        """Add the current task's classes to the head, unless it has them (after a resumption)."""
        head: Any = self.net.head
        if sum(head.sizes) < self.n_seen_classes * self.OUTPUTS_PER_CLASS:
            head.grow(self.cpt * self.OUTPUTS_PER_CLASS, seeded(self.args.seed, "head", self.current_task))

    def begin_task(self, dataset: ContinualDataset) -> None:
        """Prepare for the first epoch.

        It may take long: a method that makes synthetic samples makes them here.
        """
        self.opt = self.new_optimizer(self.net.parameters())

    def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Prepare for an epoch of the task (from 0): set the learning rate."""
        options = self.options
        passed = sum(epoch >= milestone for milestone in milestone_epochs(options.n_epochs, options.lr_milestones))
        self.set_rate(options.lr * options.lr_gamma**passed)

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int = 0, step: int = 0
    ) -> dict[str, Tensor]:
        """Take one step on a batch of the current task, by :meth:`descend`.

        Args:
            inputs: (b, c, h, w), normalised and augmented.
            labels: (b,), global.
            not_aug_inputs: the same images as uint8 pixels.
            epoch, step: their numbers in the task. With the seed they decide every random number of
                the step.

        Returns:
            The losses by name, detached. ``loss`` is their sum, which was minimised.
        """
        raise NotImplementedError(f"{type(self).__name__} has no observe()")

    def descend(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take one step down the sum of ``losses``, which are weighted scalars by name.

        Return what :meth:`observe` returns.
        """
        assert self.opt is not None, "begin_task() builds the optimiser"
        total = torch.stack(list(losses.values())).sum()
        self.opt.zero_grad()
        total.backward()
        self.opt.step()
        return {**{name: value.detach() for name, value in losses.items()}, "loss": total.detach()}

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Return the context that is entered around :meth:`observe`.

        Products are in bfloat16 if ``--precision bf16`` asks for it, else in float32.
        """
        asked = getattr(self.args, "precision", "auto") == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16) if asked else nullcontext()

    def set_modes(self) -> None:
        """Put the network, or the part of it that trains, into training mode."""
        self.net.train()

    def end_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
        """Finish an epoch."""

    def end_task(self, dataset: ContinualDataset) -> None:
        """Finish a task, before its evaluation.

        A run that stops at a ``host.safe_point`` in here begins ``end_task`` anew. Nothing may have
        changed before such a point.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, seen classes) of normalised images (b, c, h, w)."""
        return self.net(x)

    @property
    def classified_by(self) -> str:
        """Return by which of :meth:`scores` images are classified; "head" is the usual one."""
        return str(getattr(self.args, "classifier", "head"))

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Return the scores (b, seen classes) of images by the name of each classifier.

        A method that keeps statistics has several
        (:mod:`pmi_cl.models.statistics_classifier`). ``x`` is as in :meth:`forward`.
        """
        return {self.classified_by: self(x)}

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's logits (b, seen classes) and the features (b, d) of images."""
        logits, features = self.net(x, returnt="both")
        return logits, features

    def every_class(self, x: Tensor) -> Tensor:
        """Return the logits (b, all classes of the run) of images, unseen classes included.

        Only methods with ``NAMES_UNSEEN`` can. ``x`` is as in :meth:`forward`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot tell classes that it has not learned")

    def new_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """Return SGD with the options' rate, momentum and weight decay over the parameters."""
        options = self.options
        return MomentumSGD(parameters, lr=options.lr, momentum=options.optim_mom, weight_decay=options.optim_wd)

    def set_rate(self, lr: float) -> None:
        """Set the learning rate of every parameter."""
        assert self.opt is not None, "begin_task() builds the optimiser"
        for group in self.opt.param_groups:
            group["lr"] = lr

    def stored(self) -> dict[str, int]:
        """Return the bytes that the method holds beside the network that classifies, by kind.

        It is called between two tasks, and before the first epoch of a task. What is new in each
        task, such as an optimiser, is not counted. Kinds are ``real images`` (exemplars),
        ``synthetic images``, ``statistics``, and ``networks`` (a teacher, a generator), see
        :func:`pmi_cl.models.storage.bytes_of`.
        """
        return {}

    def inversion_figures(self) -> dict[str, float]:
        """Return what inversion has cost over the run so far.

        The names are images, steps, step_equivalents, forward_passes, backward_passes, seconds.
        """
        return {}

    def state(self) -> dict[str, Any]:
        """Return everything that the method needs to go on, as tensors and plain data."""
        return {
            "task": self.current_task,
            "net": self.net.state_dict(),
            "opt": None if self.opt is None else self.opt.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state`.

        Raises:
            Exception: one of Python's own, if it is not the state of this method and these tasks.
        """
        self.load_weights(state)
        if state["opt"] is not None:
            self.restore_optimizer()
            if self.opt is None:
                raise ValueError("there is a state of an optimiser where no stage has one")
            load_optimizer(self.opt, state["opt"])

    def load_weights(self, state: dict[str, Any]) -> None:
        """Restore the task, the network, and what decides which part of it trains."""
        self._load_net(state["net"], whole_field(state["task"], high=self.dataset.N_TASKS - 1))

    def _load_net(self, state: dict[str, Tensor], task: int) -> None:
        self.current_task = task
        self.net.load_state_dict(state)
        sizes = tuple(getattr(getattr(self.net, "head", None), "sizes", ()))
        expected = [classes * self.OUTPUTS_PER_CLASS for classes in self.dataset.tasks.sizes]
        if list(sizes) != expected[: len(sizes)]:
            raise ValueError("the heads are not those of this run's tasks")

    # What is needed to use the network, without training it further.

    def network_state(self) -> dict[str, Tensor]:
        """Return the tensors by which :meth:`forward` classifies, by name.

        What :meth:`backbone_state` returns is left out. A method whose ``forward`` needs more than
        ``net`` overrides this and :meth:`load_network`.
        """
        return dict(self.net.state_dict())

    def load_network(self, state: dict[str, Tensor], task: int) -> None:
        """Restore :meth:`network_state` as it was after ``task`` (from 0).

        Raises:
            Exception: one of Python's own, if it is not that of this method and these tasks.
        """
        self._load_net(state, task)

    def backbone_state(self) -> dict[str, Tensor]:
        """Return the weights that no task changes, by name: those of a frozen backbone."""
        return {}

    def load_backbone(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`backbone_state`. Raise one of Python's own errors if it does not fit."""
        if state:
            raise ValueError("this method has no frozen backbone")

    def restore_optimizer(self) -> None:
        """Build ``opt`` over the parameters of the saved state, which then is loaded into it."""
        self.opt = self.new_optimizer(self.net.parameters())
