"""Offer our methods to Mammoth: its loop makes the calls that our own runner would make.

Import this only once Mammoth is imported.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pmi_cl.errors import UserError
from pmi_cl.mammoth.checkout import part
from pmi_cl.mammoth.flags import HostedEntry
from pmi_cl.mammoth.task_data import TaskData, to_uint8
from pmi_cl.models.host import NullHost, PhaseState
from pmi_cl.registry.catalogue import Entry
from pmi_cl.seeding import seeded
from pmi_cl.utils.arguments.command_line import Resolved
from pmi_cl.utils.run.building import build_model
from pmi_cl.utils.run.progress import Progress

MammothModel: Any = part("models.utils.continual_model").ContinualModel


class HostedMethod(MammothModel):
    """Offer one of our methods to Mammoth.

    Attributes:
        HOSTED: the method's entry.
        BRIDGE: what is registered beside it.
        method: the method itself. It is no submodule: Mammoth saves its network as ``net``, and its
            other state as extra state.
        data: the images of the current task, as our methods know data sets.
        batches: the batches of the epoch, if the data set is one of ours.
        within_task: whether a task has begun that has not ended.
    """

    HOSTED: HostedEntry
    BRIDGE: Any
    method: Any = None
    data: TaskData
    batches: Iterator[tuple[Tensor, Tensor, Tensor]] | None = None
    within_task = False

    def __init__(self, backbone: Any, loss: Any, args: Any, transform: Any, dataset: Any = None) -> None:
        super().__init__(backbone, loss, copy.copy(args), transform, dataset)
        network, options = self.BRIDGE.find("backbone", args.backbone), self.BRIDGE.run_options(args)
        self.data = TaskData(self.dataset, self.device, options.seed)
        shown = Entry("dataset", self.data.NAME, "Mammoth", "", "")
        resolved = Resolved(options, {}, self.HOSTED.entry, shown, network.entry)
        object.__setattr__(self, "method", build_model(resolved, self.data))
        self.method.loss, self.method.host = loss, MammothHost(bool(args.non_verbose))
        self.net = self.method.net
        if self.method.n_epochs() == 0:
            # Nothing is ever trained. Mammoth reads its own arguments, and would train one epoch.
            args.n_epochs = 0

    @classmethod
    def get_parser(cls, parser: Any) -> Any:
        """Add the method's flags."""
        part("utils.args").build_parsable_args(parser, cls.HOSTED.parsable_args())
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

    def progress(self, phase: str, state: PhaseState) -> None:
        """Show every phase but training, for which Mammoth has a bar."""
        if not phase.endswith("training"):
            self._progress.show(phase, state)

    def safe_point(self) -> None:
        """Raise SystemExit after Ctrl-C or SIGTERM, as Mammoth's loop does between two batches."""
        if getattr(sys.modules.get("utils.globals"), "GLOBALS", {}).get("SHOULD_STOP"):
            raise SystemExit(0)
