"""Give every method with PMI what it needs, whatever its network.

That is contrastive models, and inversions that can be stopped and resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pmi_cl.errors import RunFailed, UserError
from pmi_cl.inversion.engine.cost import InversionReport
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.features.contrastive import ContrastiveBank, ContrastiveConfig, train_contrastive
from pmi_cl.inversion.features.gaussians import ClassGaussians
from pmi_cl.inversion.ways.buffer import SyntheticBuffer
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.host import PhaseState
from pmi_cl.options import option
from pmi_cl.seeding import mix

SHOWN = 10  # pictures of each class


def state_of(step: InversionStep) -> PhaseState:
    """Return how far an inversion is after a step."""
    return PhaseState(step.done, step.total, step.where, step.part, {"loss": step.loss})


@dataclass(frozen=True)
class SelectionOptions:
    """The flags of the feature selection, the same for every network (App. I.1, I.2)."""

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


def restored(kind: Any, state: Any, device: torch.device) -> Any:
    """Return the object of class ``kind`` from its own state; None where there is no state."""
    return None if state is None else kind.from_state(state, device)


def refuse_unfit(
    method: ContinualModel,
    gaussians: ClassGaussians | None,
    bank: ContrastiveBank | None,
    buffer: SyntheticBuffer | None,
    shape: tuple[int, ...],
) -> None:
    """Compare what a checkpoint holds with the network and the classes.

    Args:
        method: its task and its network are loaded.
        gaussians, bank: of features; None: there are none.
        buffer: of samples.
        shape: of a sample, (c, h, w).

    Raises:
        ValueError: a size is not that of this network, or of classes that were learned.
    """
    if gaussians is not None:
        known = (method.n_past_classes, method.n_seen_classes)
        if len(gaussians.mean) not in known or gaussians.mean.shape[1] != method.net.feature_dim:
            raise ValueError("the Gaussians are not those of these classes and features")
    for classes, models in bank.groups if bank is not None else ():
        if models.weights[0].shape[-1] != method.net.feature_dim or max(classes) >= method.n_seen_classes:
            raise ValueError("the contrastive models are not those of these classes and features")
    if buffer is not None and (buffer.images.shape[1:] != shape or int(buffer.labels.max()) >= method.n_seen_classes):
        raise ValueError("the samples are not those of these classes and images")


def contrastive_models(
    method: ContinualModel, features: Tensor, labels: Tensor, n_classes: int
) -> ContrastiveBank | None:
    """Train the contrastive model f_cont of each of ``n_classes`` classes.

    Args:
        method: a method with :class:`SelectionOptions`.
        features: (n, d), of real or synthetic samples.
        labels: (n,), from 0 to ``n_classes`` - 1.

    Returns:
        The models; None where ``--cfs 0`` asks for none.
    """
    o = method.options
    if not o.cfs:
        return None
    config = ContrastiveConfig(o.cont_epochs, o.cont_lr, cast(Any, o.cont_optimizer), o.cont_keep_best)
    seed = mix(method.args.seed, "contrastive", method.current_task)
    bank = train_contrastive(features, labels, n_classes, config, seed, method.host.safe_point)
    if bank.losses:
        uniformity = sum(bank.losses.values()) / len(bank.losses)
        method.host.scalars({"f_cont/uniformity": uniformity}, method.current_task)
    return bank


class InversionRunner:
    """Carries out the inversions of a method, one after the other, and adds up their cost.

    A checkpoint in the middle of an inversion holds its state. After a resumption the method makes
    the same inversion again, and :meth:`run` goes on where it was stopped.

    Attributes:
        method: gives the host, the data set and the number of the task.
        current: the inversion under way; None between two of them.
        cost: the cost of all inversions that have ended.
    """

    def __init__(self, method: ContinualModel) -> None:
        self.method = method
        self.current: Inversion | None = None
        self.cost = InversionReport()
        self._saved: dict[str, Any] | None = None

    def run(self, name: str, inversion: Inversion, rate: str = "inv_lr") -> Tensor:
        """Take every step of an inversion, or those that are left of one that was saved.

        Args:
            name: what progress and records call it.
            inversion: not begun.
            rate: the option that sets the rate of its full-model stage, for the error message.

        Returns:
            The samples (n, ...), in the order of the inversion's targets.

        Raises:
            RunFailed: a loss stays non-finite; names the option to lower.
        """
        host = self.method.host
        inversion = self.current = host.to_run(inversion)
        if self._saved is not None:
            self._load(inversion, self._saved)
            self._saved = None
        try:
            for step in inversion.run():
                host.progress(f"{name} inversion", state_of(step))
                host.scalars({f"inversion/{name}/{step.stage}": step.loss}, step.done)
                host.safe_point()
        except NonFiniteInversion as error:
            raise RunFailed(f"{error} (--{'pmi_lr' if error.name.startswith('layer') else rate})") from error
        return inversion.images()

    @staticmethod
    def _load(inversion: Inversion, state: dict[str, Any]) -> None:
        """Let an inversion go on. Raise UserError if the state is that of another one."""
        try:
            inversion.load(state)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"the inversion in the checkpoint does not fit this run ({type(error).__name__}): "
                "give an older checkpoint, or start the run again"
            ) from error

    def end(self, name: str, images: Callable[[Tensor], Tensor], labels: Tensor) -> None:
        """Add the current inversion to the cost; show its curves, its pace and pictures by class.

        Args:
            name: what progress and records call it.
            images: gives the images (m, 3, h, w), normalised, of the samples with the numbers (m,).
            labels: (n,), of all samples.
        """
        assert self.current is not None, "run() comes first"
        report, host = self.current.report, self.method.host
        pace = report.images / max(report.seconds, 1e-9)
        host.scalars({"inversion/images per second": pace}, self.method.current_task)
        first_batch = [entry for entry in report.losses if entry["batch"] == 0]
        host.curves(f"inversion/{name}", {entry["stage"]: entry["losses"].tolist() for entry in first_batch})
        rows = torch.cat([(labels == label).nonzero().flatten()[:SHOWN] for label in labels.unique().tolist()])
        host.images(f"synthetic/{name}", self.method.dataset.denormalise(images(rows), labels[rows]), labels[rows])
        self.cost, self.current = self.cost + report, None

    def figures(self) -> dict[str, float]:
        """Return what the inversions have cost over the run so far."""
        return (self.cost if self.current is None else self.cost + self.current.report).summary()

    def state(self) -> dict[str, Any]:
        """Return the inversion under way and the cost. The keys are those of version 0.1.0."""
        return {"inversion": self.current.state() if self.current else self._saved, "bill": self.cost.summary()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned; ``state`` may hold further keys."""
        if not isinstance(state["inversion"], dict | None):
            raise TypeError("the inversion under way is no state")
        self._saved = state["inversion"]
        self.cost = InversionReport.from_summary(state["bill"])
