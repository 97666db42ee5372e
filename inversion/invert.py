"""``invert(model, ...)``: the engine in one call, for a network of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.checks import check_call, check_copy, check_pieces, check_sizes
from pmi_cl.inversion.engine.cost import InversionReport
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import even_batches
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import device_of, split_network
from pmi_cl.inversion.networks.token_network import Invertible
from pmi_cl.inversion.objectives import Batch, CrossEntropy, Objective, StatisticsMatch
from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.machine.memory import MemoryGauge
from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class InversionResult:
    """What :func:`invert` gives.

    Attributes:
        images: (n, c, h, w), in the network's input space.
        report: what they cost.
        judged: their loss in float32, term by term.
    """

    images: Tensor
    report: InversionReport
    judged: dict[str, float]


def invert(
    model: nn.Module,
    *,
    image_shape: tuple[int, int, int],
    targets: Tensor | None = None,
    labels: Tensor | None = None,
    config: InversionConfig | None = None,
    pieces: Sequence[nn.Module] | None = None,
    head: nn.Module | None = None,
    input_moments: Sequence[Moments] | None = None,
    colour: Colour | None = None,
    seed: int = 0,
    progress: Callable[[InversionStep], None] | None = None,
) -> InversionResult:
    """Synthesise images that give the target features, or that the network classifies as the labels.

    The model itself is not changed: the engine works on a frozen copy with its BatchNorms folded. The mark of the peak memory is set
    anew (:class:`pmi_cl.machine.memory.MemoryGauge`), so that the report's is this call's.

    Example:
        >>> layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
        >>> network = nn.Sequential(*layers)  # yours is trained
        >>> config = InversionConfig(start="lowfreq", steps=5, terms=(CrossEntropy(), StatisticsMatch(0.1)))
        >>> result = invert(network, image_shape=(3, 8, 8), labels=torch.tensor([0, 1, 0, 1]), config=config)
        >>> result.images.shape, result.report.steps, sorted(result.judged)
        (torch.Size([4, 3, 8, 8]), 5, ['CrossEntropy', 'StatisticsMatch', 'total'])

    Args:
        image_shape: (channels, height, width) of the images to make.
        model: is not changed; only ``pieces`` and ``head`` are looked at where they are given.
        targets: (n, d) features for ``FeatureMatch``. Targets, labels or both are given.
        labels: (n,) whole class numbers, of any type of integer, for ``CrossEntropy``.
        config: the appendix's settings where it is not given; without targets, cross-entropy takes the place of the feature's distance.
        pieces: modules whose composition maps images to features (n, d), where the network cannot be cut along its children
            (:func:`pmi_cl.inversion.networks.pieces.split_network`).
        head: the classifier on top of the ``pieces``.
        input_moments: of every piece's input, for the starts ``stats``, ``stem`` and ``pmi``
            (:func:`pmi_cl.inversion.networks.pieces.measure_input_moments`).
        colour: optimise in the colour space of real images (:meth:`pmi_cl.inversion.parts.colour.Colour.of`).
        seed: of all random numbers.
        progress: called with every step; the engine itself prints nothing.

    Raises:
        ValueError: the network cannot be cut or traced, an argument or a setting is none, targets or labels do not fit the network, a term
            looks at what it has not, or a start needs moments that are not there; says which.
        NonFiniteInversion: the loss stayed non-finite at a quarter of the rate; names the layer.
    """
    label_only = (CrossEntropy(), StatisticsMatch(0.1))
    config = config or (InversionConfig() if targets is not None else InversionConfig(terms=label_only))
    check_call(model, image_shape, pieces, head)
    device = device_of([model] if pieces is None else pieces)
    example = torch.randn(2, *image_shape, generator=seeded(seed, "example")).to(device)
    if pieces is None:
        pieces, head = split_network(model, example)
    check_pieces(pieces, head, example)
    MemoryGauge(device).reset()
    inversion = Inversion(
        pieces,
        head,
        config,
        image_shape=image_shape,
        targets=targets,
        labels=labels,
        input_moments=input_moments,
        colour=colour,
        seed=seed,
    )
    network = FrozenNetwork(pieces, head, direction=config.direction, device=device)
    check_copy(network, pieces, example)
    check_sizes(network, example, targets, labels)
    for step in inversion.run():
        if progress is not None:
            progress(step)
    images = inversion.images()
    judged = judge(network, Objective(config.terms), images, targets, labels, config.batch)
    return InversionResult(images, inversion.report, judged)


def judge(
    network: Invertible,
    objective: Objective,
    images: Tensor,
    targets: Tensor | None,
    labels: Tensor | None,
    batch: int = 500,
    contexts: Tensor | None = None,
) -> dict[str, float]:
    """Every term of the objective, and their ``total``, for images without transforms: the loss to compare inversions by.

    Args:
        network: in float32; a bfloat16 network misjudges its own loss (``docs/findings.md``).
        batch: most images whose statistics are compared together; the batches are even, and the terms averaged over them by their size.
        contexts: (n, dq), for a network whose pieces take one.
    """
    targets, labels, contexts = (
        None if given is None else given.to(images.device) for given in (targets, labels, contexts)
    )
    labels = None if labels is None else labels.long()
    sums: dict[str, float] = {}
    with torch.no_grad():
        for rows in even_batches(len(images), batch):
            part = images[rows]
            features, kls = network(part, None if contexts is None else contexts[rows])
            taken = Batch(
                part,
                features,
                kls,
                None if targets is None else targets[rows],
                None if labels is None else labels[rows],
                network.head,
            )
            for name, value in objective.parts(taken).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part) / len(images)
    return {**sums, "total": sum(sums.values())}
