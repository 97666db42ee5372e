"""What every method with PMI keeps and does, whatever its network: Gaussians, contrastive models, an inversion that can be stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pmi_cl.errors import RunFailed
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.cost import InversionReport
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.features.contrastive import ContrastiveBank, ContrastiveConfig, train_contrastive
from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.options import option
from pmi_cl.seeding import mix

SHOWN = 10  # pictures of each class


@dataclass(frozen=True)
class SelectionOptions:
    """How features are selected: the same for every network (App. I.1, I.2)."""

    cfs: bool = option(
        True,
        "1: contrastive feature selection; 0: plain Gaussian samples, the ablation",
        source="PMI appendix; Table 5",
        binds="checkpoint",
    )
    cfs_ratio: float = option(
        0.5, "part of the candidates that a round selects", low=0.001, high=1, source="PMI appendix I"
    )
    cont_epochs: int = option(
        200, "epochs of each contrastive model", unit="epochs", low=1, high=100_000, source="PMI appendix I"
    )
    cont_lr: float = option(0.01, "learning rate of the contrastive models", above=0, source="PMI appendix I")
    cont_optimizer: str = option(
        "sgd", "optimiser of the contrastive models", choices=("sgd", "adam"), source="PMI appendix I; code: adam"
    )
    cont_keep_best: bool = option(
        False,
        "1: of a contrastive model, keep the weights of the lowest batch loss; 0: the last",
        source="PMI appendix I; code: 1",
    )


def taken_up(kind: Any, state: Any, device: torch.device) -> Any:
    """What ``kind`` makes of a state of its own; None for None."""
    return None if state is None else kind.from_state(state, device)


class InversionMixin(ContinualModel):
    """A mixin for methods whose options are :class:`SelectionOptions` and more.

    Before a task :meth:`prepare_replay` makes the samples that stand for the old classes. A subclass says how in four steps, the same for
    every network: :meth:`sample_labels`, :meth:`sample_targets`, :meth:`new_inversion` (by :meth:`inversion_config`) and
    :meth:`as_buffer`.

    Attributes:
        gaussians: of the features of every seen class.
        bank: the contrastive model of every seen class; None without CFS.
        buffer: the synthetic samples of the task at hand.
        inversion: the one under way; a checkpoint in mid-inversion goes on with it.
        bill: of all inversions that have ended.
    """

    options: SelectionOptions

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gaussians: ClassGaussians | None = None
        self.bank: ContrastiveBank | None = None
        self.buffer: SyntheticBuffer | None = None
        self.inversion: Inversion | None = None
        self._saved_inversion: dict[str, Any] | None = None
        self.bill = InversionReport()

    # Before a task: select features of the old classes, invert them.

    def prepare_replay(self) -> None:
        """Select features of the old classes (CFS), invert them, and keep the samples with the logits of the model before the task."""
        with self.host.phase("selection"):
            labels = self.sample_labels()
            targets, contexts = self.sample_targets(labels)
        name = f"task {self.current_task + 1}"
        inversion = self.new_inversion(name, labels, targets, contexts)
        self.buffer = self.inverted(name, inversion, labels, range(self.n_past_classes))

    def sample_labels(self) -> Tensor:
        """Give the old classes (n,) of the samples, so shuffled that a batch mixes classes."""
        raise NotImplementedError

    def sample_targets(self, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Select a feature (n, d) for each label (n,), and what the network needs beside it (n, dq), if anything."""
        raise NotImplementedError

    def inversion_config(self) -> InversionConfig:
        """Make the engine's settings from the options."""
        raise NotImplementedError

    def new_inversion(self, name: str, labels: Tensor, targets: Tensor, contexts: Tensor | None) -> Inversion:
        """Make the inversion of the model before the task from ``targets`` (n, d) of ``labels`` (n,); the run calls it ``name``."""
        raise NotImplementedError

    def as_buffer(self, samples: Tensor, labels: Tensor, kept: Tensor | None, classes: range) -> SyntheticBuffer:
        """Keep samples (n, ...) of ``labels`` (n,) with the logits of ``classes`` by the model before the task.

        Args:
            kept: (n, k), the patches of each sample that were inverted; None: all.
        """
        raise NotImplementedError

    def inverted(
        self, name: str, inversion: Inversion, labels: Tensor, classes: range, rate: str = "inv_lr"
    ) -> SyntheticBuffer:
        """Carry out an inversion, or go on with the one that was saved: samples to be replayed as ``labels`` (n,) among ``classes``.

        Args:
            rate: the option that sets the rate of its full-model stage.
        """
        with self.host.phase("inversion"):
            samples = self._all_steps(name, inversion, rate)
            buffer = self.as_buffer(samples, labels, inversion.kept(), classes)
        self._close(name, samples, labels)
        return buffer

    def _all_steps(self, name: str, inversion: Inversion, rate: str) -> Tensor:
        """Take every step of an inversion, or those that are left of one that was saved: its samples (n, ...)."""
        self.inversion = inversion
        if self._saved_inversion is not None:
            inversion.load(self._saved_inversion)
            self._saved_inversion = None
        try:
            for step in inversion.run():
                self.host.progress(f"{name} inversion", step.done, step.total, loss=step.loss)
                self.host.scalars({f"inversion/{name}/{step.stage}": step.loss}, step.done)
                self.host.safe_point()
        except NonFiniteInversion as error:
            raise RunFailed(f"{error} (--{'pmi_lr' if error.name.startswith('layer') else rate})") from error
        return inversion.images()

    def _close(self, name: str, samples: Tensor, labels: Tensor) -> None:
        """Show curves, pace and pictures by class of the inversion that has ended, and add up the bill."""
        assert self.inversion is not None
        report = self.inversion.report
        self.host.scalars({"inversion/images per second": report.images / max(report.seconds, 1e-9)}, self.current_task)
        self.host.curves(
            f"inversion/{name}",
            {entry["stage"]: entry["losses"].tolist() for entry in report.losses if entry["batch"] == 0},
        )
        rows = torch.cat([(labels == label).nonzero().flatten()[:SHOWN] for label in labels.unique().tolist()])
        self.host.images(f"synthetic/{name}", self.dataset.denormalise(self.pictures(samples[rows])), labels[rows])
        self.bill, self.inversion = self.bill + report, None

    def pictures(self, samples: Tensor) -> Tensor:
        """Give the images (n, 3, h, w), normalised, that show samples."""
        return samples

    # After a task.

    def contrastive_models(self, features: Tensor, labels: Tensor, n_classes: int) -> ContrastiveBank | None:
        """Train f_cont of each of ``n_classes`` classes from features (n, d) and labels (n,); None without CFS."""
        o = self.options
        if not o.cfs:
            return None
        config = ContrastiveConfig(o.cont_epochs, o.cont_lr, cast(Any, o.cont_optimizer), o.cont_keep_best)
        seed = mix(self.args.seed, "contrastive", self.current_task)
        bank = train_contrastive(features, labels, n_classes, config, seed, self.host.safe_point)
        if bank.losses:
            self.host.scalars({"f_cont/uniformity": sum(bank.losses.values()) / len(bank.losses)}, self.current_task)
        return bank

    def inversion_figures(self) -> dict[str, float]:
        """Tell what the inversions have cost over the run so far."""
        return (self.bill if self.inversion is None else self.bill + self.inversion.report).summary()

    def state(self) -> dict[str, Any]:
        """Give the base's, the statistics of the classes, the synthetic samples, the inversion under way and the bill."""
        own = {
            "gaussians": self.gaussians and self.gaussians.state(),
            "bank": self.bank and self.bank.state(),
            "buffer": self.buffer and self.buffer.state(),
            "inversion": self.inversion.state() if self.inversion else self._saved_inversion,
            "bill": self.bill.summary(),
        }
        return {**super().state(), **own}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state`; an inversion under way is built again by the method, and goes on in :meth:`inverted`."""
        super().load_state(state)
        self.gaussians = taken_up(ClassGaussians, state["gaussians"], self.device)
        self.bank = taken_up(ContrastiveBank, state["bank"], self.device)
        self.buffer = taken_up(SyntheticBuffer, state["buffer"], self.device)
        self._saved_inversion = state["inversion"]
        self.bill = InversionReport.from_summary(state["bill"])
