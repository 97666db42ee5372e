"""What all parts of the inversion benchmark share: the networks, the targets, the float32 judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pmi_cl.benchmarks.cifar_judges import CLASSES, Judge, JudgeSettings, load_cifar, obtain_judge
from pmi_cl.benchmarks.running import Clock, Way
from pmi_cl.datasets.seq_cifar100 import SeqCifar100
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.features.gaussians import fit_gaussians
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.invert import judge
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import measure_input_moments
from pmi_cl.inversion.objectives import CrossEntropy, FeatureMatch, Objective, StatisticsMatch, TotalVariation
from pmi_cl.seeding import seeded

IMAGE_SHAPE = (3, 32, 32)
PRINTED_ALPHA = 1.6  # the weight of the statistics (App. I.1), the engine's default
ALPHA = 0.1  # the same divided by the 16 blocks, the engine's default in version 0.1.0 (docs/provenance.md)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        images: optimised together, equally many of each class.
        full_steps: of the full-model stage, 280 (App. I.1).
        pmi_steps: of PMI, 100 (App. I.1).
        naive_steps: the judged loss of the naive loop after so many steps is the one that every
            start has to reach. 105 is what the prototype took (``docs/findings.md``), fixed before
            the first measurement.
        judge_every: steps between two judgements of the loss.
        rounds: step times are medians over so many rounds.
        block: steps that every loop takes in a round, in turn.
    """

    images: int = 200
    judges: JudgeSettings = field(default_factory=JudgeSettings)
    full_steps: int = 280
    pmi_steps: int = 100
    naive_steps: int = 105
    judge_every: int = 5
    rounds: int = 9
    block: int = 3


QUICK = Size(
    images=20,
    judges=JudgeSettings("resnet20", epochs=1, images=50),
    full_steps=10,
    pmi_steps=2,
    naive_steps=10,
    rounds=3,
    block=2,
)


@dataclass(frozen=True)
class Workbench:
    """Everything that an inversion of the network A needs, and its judges.

    Attributes:
        inverted: the network A.
        judge: the network B.
        pieces: of A.
        moments: of the inputs of the pieces over the training images.
        labels: (images,), the classes in turn.
        targets: (images, 64), a feature drawn from the Gaussian of each label.
        reference: A in float32, which judges the losses.
    """

    data: SeqCifar100
    inverted: Judge
    judge: Judge
    pieces: list[nn.Module]
    moments: list[Moments]
    labels: Tensor
    targets: Tensor
    reference: FrozenNetwork
    size: Size
    seed: int

    def inversion(
        self, config: InversionConfig, way: Way, *, start: Tensor | None = None, targets: Tensor | None = None
    ) -> Inversion:
        """Return an inversion that has taken no step.

        ``start`` gives images to begin with, in place of what ``config`` would begin with.
        """
        if way.compiled:
            torch.compiler.reset()  # else torch falls back to eager silently once it has compiled eight networks
        problem = Problem(
            frozen_network(self.pieces, self.inverted.network.head, config, self.moments),
            config,
            image_shape=IMAGE_SHAPE,
            targets=self.targets if targets is None else targets,
            labels=self.labels,
            seed=self.seed,
        )
        inversion = Inversion(problem)
        if start is not None:
            inversion.load({**inversion.state(), "carry": start, "stage": len(inversion.stages) - 1})
        return inversion

    def config(self, way: Way, alpha: float = ALPHA) -> InversionConfig:
        """Return the paper's settings (App. I.1) for all images in one batch, from white noise."""
        terms = (FeatureMatch(1.0), StatisticsMatch(alpha))
        batch, steps = self.size.images, self.size.full_steps
        return InversionConfig(steps=steps, batch=batch, precision=way.precision, compiled=way.compiled, terms=terms)

    def terms(self, images: Tensor) -> dict[str, float]:
        """Return the float32 judge's figures, not weighted: MSE to the targets, KL, cross-entropy,
        total variation.
        """
        objective = Objective((FeatureMatch(), StatisticsMatch(1.0), CrossEntropy(), TotalVariation(1.0)))
        parts = judge(self.reference, objective, images, self.targets, self.labels, batch=len(images))
        names = {
            "mse": "FeatureMatch",
            "kl": "StatisticsMatch",
            "cross_entropy": "CrossEntropy",
            "tv": "TotalVariation",
        }
        return {name: parts[term] for name, term in names.items()}

    def loss(self, images: Tensor, alpha: float = ALPHA) -> float:
        """Return MSE + ``alpha`` x KL, judged in float32."""
        terms = self.terms(images)
        return terms["mse"] + alpha * terms["kl"]


def warm_up(inversion: Inversion, start: Tensor) -> float:
    """Two full-model steps that leave no trace, so that compiling is not timed.

    Returns the wall seconds that they took.
    """
    before = inversion.state()
    inversion.load({**before, "carry": start, "stage": len(inversion.stages) - 1})
    clock = Clock()
    with clock.running():
        steps = inversion.run()
        next(steps)
        next(steps)
    inversion.load(before)
    return clock.wall


def prepare(
    data_folder: Path, work: Path, size: Size, seed: int, offline: bool, say: Callable[[str], None]
) -> Workbench:
    """Load CIFAR-100, obtain A and B, measure A's statistics over the training images, draw the
    targets.
    """
    data = load_cifar(data_folder, size.judges.images, offline)
    inverted, judging = (obtain_judge(data, size.judges, number, work, say) for number in (0, 1))
    network = inverted.network
    moments = measure_input_moments(network.pieces(), (images for images, _ in data.plain_batches(0)))
    with torch.no_grad():
        features = torch.cat([network.features(images) for images, _ in data.plain_batches(0)])
    gaussians = fit_gaussians(features, data.train.labels, CLASSES)
    labels = torch.arange(size.images) % CLASSES
    targets = gaussians.sample(labels, seeded(seed, "targets"))
    reference = FrozenNetwork(network.pieces(), network.head)
    return Workbench(data, inverted, judging, network.pieces(), moments, labels, targets, reference, size, seed)
