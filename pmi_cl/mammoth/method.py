"""A method of ours as a method of Mammoth: the same object, told by Mammoth's loop what our runner would tell it."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.errors import UserError
from pmi_cl.mammoth.data import TaskData, pixels
from pmi_cl.mammoth.flags import Flags, refuse_unused, run_arguments
from pmi_cl.models.continual_model import RunOutline
from pmi_cl.models.host import NullHost
from pmi_cl.registry.catalogue import INSTALLED, Entry
from pmi_cl.seeding import seeded
from pmi_cl.utils.arguments.command_line import Resolved, check_kind
from pmi_cl.utils.run.progress import Progress
from pmi_cl.utils.run.runner import build_model


class Promised(nn.Module):
    """Stands where Mammoth expects the backbone until the method has built its own, from the run's seed."""

    def __init__(self, entry: Entry, options: dict[str, Any]) -> None:
        super().__init__()
        self.entry, self.options = entry, options


class HostedMethod:
    """To be mixed with Mammoth's ``ContinualModel``, in front of it.

    Attributes:
        ENTRY: the method's entry in the catalogue.
        FLAGS: the method's flags.
        method: the method itself; its network is ``net``. It is no submodule: Mammoth saves ``net`` and, as extra state, the method's own.
        data: the images of the task at hand, as the method knows data sets.
        batches: those of the epoch, where the data set is one of ours.
        within: whether a task has begun that has not ended.
    """

    ENTRY: Entry
    FLAGS: Flags
    NAME: str
    method: Any = None
    batches: Iterator[tuple[Tensor, Tensor, Tensor]] | None = None
    within = False
    # of Mammoth's class, behind this one
    args: Any
    net: Any
    opt: Any
    device: torch.device
    dataset: Any
    current_task: int
    epoch_iteration: int

    def __init__(self, backbone: Promised, loss: Any, args: Any, transform: Any, dataset: Any = None) -> None:
        refuse_unused(self.FLAGS, args)
        super().__init__(backbone, loss, copy.copy(args), transform, dataset)  # type: ignore[call-arg]
        options = {**backbone.options, **self.FLAGS.values(vars(args)), "backbone": backbone.entry.name}
        options["seed"] = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
        ours = run_arguments(options)
        if getattr(ours, "synthetic_last_task", False):
            raise UserError(
                "synthetic_last_task 1 trains on samples of its own, and Mammoth's loop hands out images: use pmi-cl itself"
            )
        data = TaskData(self.dataset, self.device, ours.seed)
        INSTALLED.load("model", self.ENTRY.name).check(ours, RunOutline(data.N_CLASSES, data.N_TASKS))
        entry = Entry("dataset", data.NAME, "Mammoth", "", "")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "method", build_model(Resolved(ours, {}, self.ENTRY, entry, backbone.entry), data))
        self.method.loss = loss
        self.method.host = MammothHost(bool(args.non_verbose))
        self.net = self.method.net
        if (
            self.method.n_epochs() == 0
        ):  # nothing is ever trained; Mammoth looks into its own arguments, and else trains one epoch at least
            args.n_epochs = 0

    data: TaskData

    @classmethod
    def get_parser(cls, parser: Any) -> Any:
        """Add the method's flags."""
        cls.FLAGS.add_to(parser)
        return parser

    def get_optimizer(self, params: Any = None, lr: Any = None) -> Any:
        """The method's own optimiser, whatever Mammoth asks for; None before it has one."""
        return None if self.method is None else self.method.opt

    def _skips(self) -> bool:
        """Whether nothing is trained in this task: its results will come from a checkpoint."""
        return bool(self.args.inference_only) or self.current_task < (self.args.start_from or 0)

    def begin_task(self, dataset: Any) -> None:
        """Take the task's images out of Mammoth's loader, and let the method prepare, which may take long."""
        self.method.current_task = self.current_task
        self.method.grow()
        if self._skips():
            return
        self.within = True
        self.data.show(self.current_task, dataset.train_loader)
        self.method.check_data(self.data)
        self.method.begin_task(self.data)
        self.args.n_epochs, self.opt = self.method.n_epochs(), self.method.opt

    def begin_epoch(self, epoch: int, dataset: Any) -> None:
        """Let the method set its learning rate and what trains."""
        self.method.begin_epoch(epoch, self.data)
        self.method.set_modes()
        if hasattr(dataset, "ours"):
            self.batches = self.data.train_batches(self.current_task, epoch, self.args.batch_size)
        self.opt = self.method.opt

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> dict[str, Any]:
        """One step. On a data set of ours it is the step that our own runner would take: the same images in the same crops.

        A network that wants images in a form of its own gets them from the images that are not augmented.
        """
        raw, epoch, step = pixels(not_aug_inputs), epoch or 0, self.epoch_iteration
        if self.batches is not None:
            inputs, labels, raw = next(self.batches)
        elif self.data.form is not None:
            inputs = self.data.augment(raw, seeded(self.method.args.seed, "augment", self.current_task, epoch, step))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.method.arithmetic():
            losses = self.method.observe(inputs, labels, raw, epoch=epoch, step=step)
        return {**losses, "loss": float(losses["loss"])}

    def end_epoch(self, epoch: int, dataset: Any) -> None:
        """Tell the method that the last batch has been."""
        self.method.end_epoch(epoch, self.data)

    def end_task(self, dataset: Any) -> None:
        """Let the method measure statistics and what else it keeps, and the task's images go."""
        if not self._skips():
            self.method.end_task(self.data)
            self.opt, self.within = self.method.opt, False
        self.data.forget()

    def forward(self, x: Tensor, *task: Any) -> Tensor:
        """Images as Mammoth's test loader gives them to the logits of the classes seen so far."""
        x = self.data.normalise(self.data.pixels(x)) if self.data.form is not None else x
        return self.method(x.contiguous(memory_format=torch.channels_last))

    def get_extra_state(self) -> dict[str, Any]:
        """The method's state, for Mammoth's checkpoints."""
        return {"method": self.method.state(), "within": self.within}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up :meth:`get_extra_state`. Raises UserError where the run would not start with the task after the checkpoint's."""
        task, start, file = state["method"]["task"] + 1, self.args.start_from or 0, f"--loadcheck {self.args.loadcheck}"
        if state["within"]:
            raise UserError(
                f"{file} was written within task {task}: give one of the end of a task, which --savecheck task keeps"
            )
        if start != task and not self.args.inference_only:
            raise UserError(f"{file} holds {task} task(s), and --start_from is {start}: say --start_from {task}")
        self.method.load_state(state["method"])


class MammothHost(NullHost):
    """Shows how far an inversion is, and stops where Mammoth was asked to."""

    def __init__(self, silent: bool) -> None:
        self._progress = Progress("0" if silent else "auto")

    def progress(self, phase: str, done: int, total: int, **values: float | Tensor) -> None:
        """Shows every phase but the training, of which Mammoth has a bar."""
        if not phase.endswith("training"):
            self._progress.update(phase, done, total, **values)

    def safe_point(self) -> None:
        """Raises SystemExit, as Mammoth's loop does between two batches, after Ctrl-C or SIGTERM."""
        flags = getattr(sys.modules.get("utils.globals"), "GLOBALS", {})
        if flags.get("SHOULD_STOP"):
            raise SystemExit(0)


def promised_backbone(
    entry: Entry | None, typed: str, model: Entry, flags: Flags | None, args: SimpleNamespace
) -> Promised:
    """What Mammoth gets in place of a backbone for one of our methods. Raises UserError where the backbone is not ours."""
    if entry is None or flags is None:
        raise UserError(
            f"--backbone {typed} is Mammoth's: {model.name} inverts its network layer by layer and needs one of pmi-cl's"
        )
    check_kind(model, entry, INSTALLED)
    return Promised(entry, flags.values(vars(args)))
