"""Offer our methods to Mammoth: its loop makes the calls that our own runner would make."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.mammoth.flags import Flags, refuse_unused, run_arguments
from pmi_cl.mammoth.hosted_backbone import BackbonePlaceholder
from pmi_cl.mammoth.task_data import TaskData, to_uint8
from pmi_cl.models.continual_model import RunOutline
from pmi_cl.models.host import NullHost
from pmi_cl.registry.catalogue import INSTALLED, Entry
from pmi_cl.seeding import seeded
from pmi_cl.utils.arguments.command_line import Resolved
from pmi_cl.utils.run.building import build_model
from pmi_cl.utils.run.progress import Progress


class HostedMethod:
    """Offer one of our methods to Mammoth.

    This is a mixin, to stand in front of Mammoth's ``ContinualModel``.

    Attributes:
        ENTRY: the method's entry in the catalogue.
        FLAGS: the method's flags.
        method: the method itself. It is no submodule: Mammoth saves its network as ``net``, and its
            other state as extra state.
        data: the images of the current task, as our methods know data sets.
        batches: the batches of the epoch, if the data set is one of ours.
        within_task: whether a task has begun that has not ended.
    """

    ENTRY: Entry
    FLAGS: Flags
    NAME: str
    method: Any = None
    data: TaskData
    batches: Iterator[tuple[Tensor, Tensor, Tensor]] | None = None
    within_task = False
    # Attributes of Mammoth's class.
    args: Any
    net: Any
    opt: Any
    device: torch.device
    dataset: Any
    current_task: int
    epoch_iteration: int

    def __init__(
        self, backbone: BackbonePlaceholder, loss: Any, args: Any, transform: Any, dataset: Any = None
    ) -> None:
        refuse_unused(self.FLAGS, args)
        super().__init__(backbone, loss, copy.copy(args), transform, dataset)  # type: ignore[call-arg]
        options = self._options(backbone, args)
        data = TaskData(self.dataset, self.device, options.seed)
        INSTALLED.load("model", self.ENTRY.name).check(options, RunOutline(data.N_CLASSES, data.N_TASKS))
        entry = Entry("dataset", data.NAME, "Mammoth", "", "")
        resolved = Resolved(options, {}, self.ENTRY, entry, backbone.entry)
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "method", build_model(resolved, data))
        self.method.loss = loss
        self.method.host = MammothHost(bool(args.non_verbose))
        self.net = self.method.net
        if self.method.n_epochs() == 0:
            # Nothing is ever trained. Mammoth reads its own arguments, and would train one epoch.
            args.n_epochs = 0

    def _options(self, backbone: BackbonePlaceholder, args: Any) -> SimpleNamespace:
        """Return the arguments of a run of ours. Raise UserError if Mammoth cannot offer one."""
        options = {**backbone.options, **self.FLAGS.values(vars(args)), "backbone": backbone.entry.name}
        options["seed"] = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
        if options.get("synthetic_last_task", False):
            raise UserError(
                "synthetic_last_task 1 trains on samples of its own, and Mammoth's loop hands out images: "
                "use pmi-cl itself"
            )
        return run_arguments(options)

    @classmethod
    def get_parser(cls, parser: Any) -> Any:
        """Add the method's flags."""
        cls.FLAGS.add_to(parser)
        return parser

    def get_optimizer(self, params: Any = None, lr: Any = None) -> Any:
        """Return the method's own optimiser, or None before there is one."""
        return None if self.method is None else self.method.opt

    def _skips_training(self) -> bool:
        """Return whether this task is not trained because its results come from a checkpoint."""
        return bool(self.args.inference_only) or self.current_task < (self.args.start_from or 0)

    def begin_task(self, dataset: Any) -> None:
        """Read the task's images from Mammoth's loader, then let the method prepare."""
        self.method.current_task = self.current_task
        self.method.grow()
        if self._skips_training():
            return
        self.within_task = True
        self.data.load_task(self.current_task, dataset.train_loader, trained=self.method.n_epochs() > 0)
        self.method.check_data(self.data)
        self.method.begin_task(self.data)
        self.args.n_epochs, self.opt = self.method.n_epochs(), self.method.opt

    def begin_epoch(self, epoch: int, dataset: Any) -> None:
        """Let the method set its learning rate and its trainable parts."""
        self.method.begin_epoch(epoch, self.data)
        self.method.set_modes()
        if hasattr(dataset, "ours"):
            self.batches = self.data.train_batches(self.current_task, epoch, self.args.batch_size)
        self.opt = self.method.opt

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> dict[str, Any]:
        """Take one step.

        On a data set of ours it is the step of our own runner: the same images in the same crops.
        A network with an input form of its own gets its images from those that are not augmented.
        """
        raw, epoch, step = to_uint8(not_aug_inputs), epoch or 0, self.epoch_iteration
        if self.batches is not None:
            inputs, labels, raw = next(self.batches)
        elif self.data.form is not None:
            inputs = self.data.augment(raw, seeded(self.method.args.seed, "augment", self.current_task, epoch, step))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.method.arithmetic():
            losses = self.method.observe(inputs, labels, raw, epoch=epoch, step=step)
        return {**losses, "loss": float(losses["loss"])}

    def end_epoch(self, epoch: int, dataset: Any) -> None:
        """Tell the method that the epoch has ended."""
        self.method.end_epoch(epoch, self.data)

    def end_task(self, dataset: Any) -> None:
        """Let the method measure statistics and copy its teacher, then drop the task's images."""
        if not self._skips_training():
            self.method.end_task(self.data)
            self.opt, self.within_task = self.method.opt, False
        self.data.drop_task()

    def forward(self, x: Tensor, *task: Any) -> Tensor:
        """Return the logits (b, classes seen) of images (b, 3, h, w) from Mammoth's test loader.

        Images of a data set of ours are normalised as in our own runner: torchvision's result
        differs in the last bit, which is enough to turn an image that lies between two classes.
        """
        if self.data.form is not None or hasattr(self.dataset, "ours"):
            x = self.data.normalise(self.data.loader_pixels(x))
        return self.method(x.contiguous(memory_format=torch.channels_last))

    def get_extra_state(self) -> dict[str, Any]:
        """Return the method's state, for Mammoth's checkpoints."""
        return {"method": self.method.state(), "within": self.within_task}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the state of :meth:`get_extra_state`.

        Raises:
            UserError: the checkpoint lies within a task, or ``--start_from`` is not its next task.
        """
        task, start, file = state["method"]["task"] + 1, self.args.start_from or 0, f"--loadcheck {self.args.loadcheck}"
        if state["within"]:
            raise UserError(
                f"{file} was written within task {task}: give one of the end of a task, which --savecheck task keeps"
            )
        if start != task and not self.args.inference_only:
            raise UserError(f"{file} holds {task} task(s), and --start_from is {start}: say --start_from {task}")
        self.method.load_state(state["method"])


class MammothHost(NullHost):
    """Show the progress of an inversion, and stop when Mammoth was asked to stop."""

    def __init__(self, silent: bool) -> None:
        self._progress = Progress("0" if silent else "auto")

    def progress(self, phase: str, done: int, total: int, **values: float | Tensor) -> None:
        """Show every phase but training, for which Mammoth has a bar."""
        if not phase.endswith("training"):
            self._progress.update(phase, done, total, **values)

    def safe_point(self) -> None:
        """Raise SystemExit after Ctrl-C or SIGTERM, as Mammoth's loop does between two batches."""
        flags = getattr(sys.modules.get("utils.globals"), "GLOBALS", {})
        if flags.get("SHOULD_STOP"):
            raise SystemExit(0)
