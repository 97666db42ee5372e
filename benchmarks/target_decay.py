"""How much of its targets an inversion still holds.

It is measured after each layer of PMI, and after full-model steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.benchmarks.cifar_judges import CLASSES
from pmi_cl.datasets.continual_dataset import ContinualDataset
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.features.gaussians import fit_gaussians
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import measure_input_moments
from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch
from pmi_cl.inversion.ways.pmi import PmiConfig
from pmi_cl.seeding import seeded

Row = dict[str, float]


@dataclass(frozen=True)
class DecaySettings:
    """What is inverted, and when it is looked at.

    Attributes:
        images: inverted together, equally many of each class.
        pmi_steps: of each layer, 100 (App. I.1).
        pmi_lr: 0.8 (App. I.1).
        lower_lr: of a second PMI, to see whether the printed rate is to blame.
        alpha: weight of the statistics, of PMI and of the full model, 1.6 (App. I.1).
        full_lr: rate of the full model, 0.15 (App. I.1).
        looks: the numbers of full-model steps after which the images are looked at.
    """

    images: int = 100
    pmi_steps: int = 100
    pmi_lr: float = 0.8
    lower_lr: float = 0.1
    alpha: float = 1.6
    full_lr: float = 0.15
    looks: tuple[int, ...] = (0, 2, 5, 10, 40)


def quick(images: int) -> DecaySettings:
    """Return the fewest steps in which everything happens."""
    return DecaySettings(images=images, pmi_steps=2, looks=(0, 1, 2))


@dataclass(frozen=True)
class Subject:
    """A network, the targets that are inverted through it, and its copy that judges.

    Attributes:
        moments: of the input of every piece over the training images.
        labels: (n,), the classes in turn.
        targets: (n, d), a feature drawn from the Gaussian of each label.
        frozen: the network, ready for inversion.
    """

    network: ResNetCifar
    moments: list[Moments]
    labels: Tensor
    targets: Tensor
    frozen: FrozenNetwork
    settings: DecaySettings
    seed: int

    @classmethod
    def of(cls, network: ResNetCifar, data: ContinualDataset, settings: DecaySettings, seed: int) -> Subject:
        """Measure the statistics of the training images and draw the targets."""
        moments = measure_input_moments(network.pieces(), (images for images, _ in data.plain_batches(0)))
        with torch.no_grad():
            features = torch.cat([network.features(images) for images, _ in data.plain_batches(0)])
        labels = torch.arange(settings.images) % CLASSES
        targets = fit_gaussians(features, data.train.labels, CLASSES).sample(labels, seeded(seed, "targets"))
        frozen = frozen_network(network.pieces(), network.head, InversionConfig(), moments)
        return cls(network, moments, labels, targets, frozen, settings, seed)

    def inversion(self, config: InversionConfig, image_shape: tuple[int, int, int], targets: Tensor) -> Inversion:
        """Return an inversion of all targets together that has taken no step."""
        return Inversion(
            Problem(self.frozen, config, image_shape=image_shape, targets=targets, labels=self.labels, seed=self.seed)
        )

    @torch.no_grad()
    def look(self, value: Tensor, piece: int, labels: Tensor, targets: Tensor) -> Row:
        """Pass the input of a piece through all above it, and compare what comes out.

        Returns:
            The share that the network gives their label, and the mean centred cosine to the
            targets.
        """
        features = self.frozen.run(value, piece)[0]
        accuracy = int((self.network.head(features).argmax(1) == labels).sum()) / len(labels)
        return {"accuracy": accuracy, "cosine": centred_cosine(features, targets)}


def centred_cosine(features: Tensor, targets: Tensor) -> float:
    """Return the mean cosine between features and targets (n, d).

    Both are less the mean of the targets. Without that the cosine of any two features of a network
    would be high.
    """
    centre = targets.mean(dim=0)
    return float(F.cosine_similarity(features - centre, targets - centre).mean())


def measure(network: ResNetCifar, data: ContinualDataset, settings: DecaySettings, seed: int) -> dict[str, Any]:
    """Return what is left of the targets, for PMI and its controls.

    Returns:
        ``targets``: what the network says of the targets themselves. ``layers``: a row for each
        layer of each PMI, from the top down. ``full``: a row for each look at each start.
    """
    subject, shape = Subject.of(network, data, settings, seed), (3, *data.SIZE)
    others = torch.randperm(settings.images, generator=seeded(seed, "shuffled targets"))
    labels, targets = subject.labels, subject.targets
    pmi = PmiConfig(steps=settings.pmi_steps, lr=settings.pmi_lr, alpha=settings.alpha)
    swept = {
        "pmi": _sweeps(subject, pmi, shape, targets),
        "pmi, lower rate": _sweeps(subject, replace(pmi, lr=settings.lower_lr), shape, targets),
        "pmi, shuffled targets": _sweeps(subject, pmi, shape, targets[others]),
    }
    asked = dict.fromkeys(swept, (labels, targets))
    asked["pmi, shuffled targets"] = labels[others], targets[others]
    layers = {
        name: [{"layer": layer, **subject.look(value, layer, *asked[name])} for layer, value in values.items()]
        for name, values in swept.items()
    }
    starts: dict[str, Tensor | None] = {name: values[0] for name, values in swept.items() if "rate" not in name}
    full = {name: _full_steps(subject, start, shape) for name, start in {**starts, "stats": None}.items()}
    own = subject.look(targets, len(subject.frozen.pieces), labels, targets)
    return {"targets": own, "layers": layers, "full": full}


def _sweeps(subject: Subject, pmi: PmiConfig, shape: tuple[int, int, int], targets: Tensor) -> dict[int, Tensor]:
    """Return what the sweep of every layer ends with: the input of that piece."""
    config = InversionConfig(start="pmi", steps=0, pmi=pmi, batch=len(targets))
    inversion, found, stage = subject.inversion(config, shape, targets), {}, 0
    for _ in inversion.run():
        if inversion.stage_number > stage:  # the first step of the next layer
            found[int(inversion.stages[stage].layer)] = inversion.carry
            stage = inversion.stage_number
    found[0] = inversion.images()
    return found


def _full_steps(subject: Subject, start: Tensor | None, shape: tuple[int, int, int]) -> list[dict[str, float]]:
    """Return a row for each look at images that full-model steps draw to the right targets.

    Args:
        subject: what is inverted.
        start: the first images; None: noise with the statistics of the real ones.
        shape: of the images.
    """
    settings = subject.settings
    terms = (FeatureMatch(), StatisticsMatch(settings.alpha))
    steps = max(settings.looks)
    config = InversionConfig(start="stats", steps=steps, lr=settings.full_lr, terms=terms, batch=settings.images)
    inversion = subject.inversion(config, shape, subject.targets)
    if start is not None:
        inversion.load({**inversion.state(), "carry": start})
    rows: list[dict[str, float]] = []
    for step in inversion.run():
        seen = [(0, step.first_images)] if step.number == 1 else []
        for number, images in [*seen, (step.number, step.images)]:
            if number in settings.looks:
                rows.append({"steps": number, **subject.look(images(), 0, subject.labels, subject.targets)})
    return rows
