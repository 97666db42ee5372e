"""The engine in one call, for any network.

Example:
    >>> layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    >>> network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 2))  # a real one is trained
    >>> config = InversionConfig(start="lowfreq", steps=5, terms=LABEL_ONLY)
    >>> result = invert(network, image_shape=(3, 8, 8), labels=torch.arange(4) % 2, config=config)
    >>> result.images.shape, result.report.steps, sorted(result.judged)
    (torch.Size([4, 3, 8, 8]), 5, ['CrossEntropy', 'StatisticsMatch', 'total'])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.checks import check_call, check_copy, check_finite, check_pieces, check_sizes
from pmi_cl.inversion.engine.cost import InversionReport
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.isolation import colour_on_its_own, moments_on_their_own, on_its_own, own_modes
from pmi_cl.inversion.engine.plan import even_batches
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.engine.stages import InversionStep
from pmi_cl.inversion.features.statistics import Moments
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.pieces import device_of, split_network
from pmi_cl.inversion.networks.protocol import InvertibleNetwork
from pmi_cl.inversion.objectives import Batch, CrossEntropy, Objective, StatisticsMatch
from pmi_cl.inversion.parts.colour import Colour
from pmi_cl.machine.memory import MemoryGauge
from pmi_cl.seeding import seeded

LABEL_ONLY = (CrossEntropy(), StatisticsMatch(0.1))  # what is minimised where there are no targets


@dataclass(frozen=True)
class InversionResult:
    """The images that :func:`invert` makes, and what they cost.

    Attributes:
        images: (n, c, h, w), in the input space of the network.
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
    """Make images that give the target features, or that the network classifies as the labels.

    The model is not changed: the engine works on a frozen copy with folded BatchNorms. The modes
    of the caller (``no_grad``, ``inference_mode``, autocast, a default type or device) make no
    difference, and are left as they were. The peak of memory in the report is that of this call.

    Args:
        model: the network; where ``pieces`` and ``head`` are given, only they are looked at.
        image_shape: (channels, height, width) of the images to make.
        targets: (n, d) features for ``FeatureMatch``. Targets, labels or both are given.
        labels: (n,) whole class numbers, of any type of integer, for ``CrossEntropy``.
        config: the settings; None: those of the appendix, with :data:`LABEL_ONLY` without targets.
        pieces: modules that in a row map images to features (n, d); None: ``split_network`` cuts.
        head: the classifier on top of the ``pieces``.
        input_moments: of each piece, for the starts ``stats``, ``stem`` and ``pmi``
            (:func:`~pmi_cl.inversion.networks.pieces.measure_input_moments`).
        colour: of real images, to optimise in (:meth:`pmi_cl.inversion.parts.colour.Colour.of`).
        seed: of all random numbers.
        progress: called with every step; the engine itself prints nothing.

    Raises:
        ValueError: the network cannot be cut or traced, or an argument does not fit; says which.
        NonFiniteInversion: the loss stayed non-finite at a quarter of the rate; names the layer.
    """
    config = config or (InversionConfig() if targets is not None else InversionConfig(terms=LABEL_ONLY))
    check_call(model, image_shape, pieces, head)
    device = device_of([model] if pieces is None else pieces)
    with own_modes(device):
        example = torch.randn(2, *image_shape, generator=seeded(seed, "example")).to(device)
        pieces, head = split_network(model, example) if pieces is None else (pieces, head)
        check_pieces(pieces, head, example)
        MemoryGauge(device).reset()
        problem = Problem(
            frozen_network(pieces, head, config, moments_on_their_own(input_moments)),
            config,
            image_shape=image_shape,
            targets=_copied(targets),
            labels=_copied(labels),
            colour=colour_on_its_own(colour),
            seed=seed,
        )
        network = FrozenNetwork(pieces, head, direction=config.direction, device=device)
        check_copy(network, pieces, example)
        check_sizes(network, example, problem.targets, problem.labels)
        check_finite(problem.targets)
        return _carried_out(problem, network, progress)


def _carried_out(
    problem: Problem, network: FrozenNetwork, progress: Callable[[InversionStep], None] | None
) -> InversionResult:
    """Invert, and judge the images by the network in float32."""
    inversion, config = Inversion(problem), problem.config
    for step in inversion.run():
        if progress is not None:
            progress(step)
    images = inversion.images()
    judged = judge(network, Objective(config.terms), images, problem.targets, problem.labels, config.batch)
    return InversionResult(images, inversion.report, judged)


def _copied(given: Tensor | None) -> Tensor | None:
    """Copy what was given, without its graph. Numbers narrower than float32 become float32."""
    if not isinstance(given, Tensor):
        return given  # refused by its name afterwards
    wide = torch.promote_types(given.dtype, torch.float32) if given.is_floating_point() else given.dtype
    return on_its_own(given).to(wide)


def judge(
    network: InvertibleNetwork,
    objective: Objective,
    images: Tensor,
    targets: Tensor | None,
    labels: Tensor | None,
    batch: int = 500,
    contexts: Tensor | None = None,
) -> dict[str, float]:
    """Return every term of the objective, and their ``total``, for images without transforms.

    This is the loss by which inversions are compared.

    Args:
        network: in float32; a bfloat16 network misjudges its own loss (``docs/findings.md``).
        objective: the terms.
        images: (n, c, h, w).
        targets: (n, d), for terms that look at them.
        labels: (n,), likewise.
        batch: the most images whose statistics are compared together. Batches are equal to within
            one, and the terms are averaged over them by their size.
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
