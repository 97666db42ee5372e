"""The loss of a batch of images through the whole network (Eq. 27)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pmi_cl.inversion.objectives import Batch, Objective
from pmi_cl.inversion.parts.image_space import ImageSpace
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.pmi import Boost
from pmi_cl.inversion.ways.sparse import Pruning


@dataclass(eq=False)
class FullLoss:
    """The loss of one batch as a function of the coordinates that are optimised.

    Attributes:
        through: maps images, a context and the patches that are kept to features and KLs: the
            network, or what takes its place.
        classify: maps features (b, d) to logits (b, classes); None without a classifier.
        objective: what is minimised.
        space: in which images are optimised.
        transforms: of the images at every step.
        seed: of the transforms.
        batch: the number of the batch, on which the transforms depend too.
        targets: (b, d).
        labels: (b,).
        context: (b, dq).
        pruning: drops patches on the way; None: never.
        boost: of the weights of the terms, which steers the gradient alone; None without.
    """

    through: Callable[..., tuple[Tensor, list[Tensor]]]
    classify: Callable[[Tensor], Tensor] | None
    objective: Objective
    space: ImageSpace
    transforms: Transforms
    seed: int
    batch: int
    targets: Tensor | None
    labels: Tensor | None
    context: Tensor | None
    pruning: Pruning | None
    boost: Boost | None = None

    def __call__(self, coordinates: Tensor, step: int) -> Tensor:
        """Map the coordinates (b, c, h, w) of step ``step`` to a scalar."""
        images = self.space.images(coordinates)
        beside: dict[str, Any] = {} if self.context is None else {"context": self.context}
        if self.pruning is not None:
            images = self.pruning.at(images, step)
            beside["kept"] = self.pruning.kept
        seen = self.transforms(images, self.seed, self.batch, step) if self.transforms else images
        features, kls = self.through(seen, **beside)
        batch = Batch(images, features, kls, self.targets, self.labels, self.classify, seen)
        if self.boost is None:
            return self.objective(batch)
        if step == 0:
            self.boost.reset()  # a descent that starts again at half the rate starts with plain weights
        return self.boost.steered(self.objective.values(batch))

    def images(self, coordinates: Tensor) -> Tensor:
        """Map coordinates to images (b, c, h, w), with dropped patches as they were then."""
        images = self.space.images(coordinates)
        return images if self.pruning is None else self.pruning.composed(images)
