"""Measure what the synthetic images and the stored statistics of a run tell of its training images.

The synthetic images are made anew from the checkpoint of the run, as the next task would make them.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pmi_cl.datasets.task_split import TaskSplit
from pmi_cl.errors import UserError
from pmi_cl.models.resnet.conditional_replay import ConditionalReplay
from pmi_cl.models.resnet.controlled_replay import ControlledReplay
from pmi_cl.seeding import seeded
from pmi_cl.utils.trained.privacy_figures import Estimate, membership, nearest, ratio_of_distances

if TYPE_CHECKING:
    from pmi_cl.datasets.continual_dataset import ContinualDataset

SHOWN = 8  # of the closest pairs


@dataclass(frozen=True)
class RealImages:
    """Real images of the learned classes, as the network gets them.

    Attributes:
        images: (n, c, h, w), normalised.
        labels: (n,).
        features: (n, d) of the network.
        logits: (n, classes) of its head.
    """

    images: Tensor
    labels: Tensor
    features: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Privacy:
    """What was measured.

    Attributes:
        synthetic, trained, held_out: the numbers of images that were compared.
        ratios: by "pixels" and "features", how much nearer training images are than held-out ones.
        members: by the name of a score, how well it tells training images from held-out ones (AUC).
        pairs: (k, 3, c, h, w), normalised: the synthetic images that are nearest to a training
            image in pixels, that image, and the nearest held-out one.
        labels: (k, 3), their labels.
    """

    synthetic: int
    trained: int
    held_out: int
    ratios: dict[str, Estimate]
    members: dict[str, Estimate]
    pairs: Tensor
    labels: Tensor


def measure_privacy(method: ControlledReplay, n: int, seed: int) -> Privacy:
    """Return what ``n`` synthetic images and the statistics of a restored method give away.

    Args:
        method: its state is that after its current task, on the data set of its run.
        n: synthetic images.
        seed: of the choices here.

    Raises:
        UserError: there are no held-out images. Or there are no synthetic ones, because of
            ``--replay``, or because its generator needs images of a next task.
    """
    if isinstance(method, ConditionalReplay) and method.current_task + 1 == method.dataset.N_TASKS:
        raise UserError("the generator needs images of the next task: give a run that has one left (--stop_after)")
    if method.control.replaces:
        raise UserError(f"the run had --replay {method.options.replay}: it made no synthetic images")
    trained, held_out = (_real_images(method, split) for split in ("train", "test"))
    images, labels = synthetic_images(method, n)
    features = _passed(method, images)[0]
    equal = _as_many(trained.labels, held_out.labels, seed)
    chosen = [torch.cat(rows) for rows in zip(*equal, strict=True)]
    ratios, spaces = {}, (("pixels", "images", images), ("features", "features", features))
    for name, space, made in spaces:
        near, away = (
            getattr(real, space)[rows].flatten(1) for real, rows in ((trained, chosen[0]), (held_out, chosen[1]))
        )
        ratios[name] = ratio_of_distances(made.flatten(1), near, away, seed)
    scores = [_scores(method, real) for real in (trained, held_out)]
    members = {name: membership(scores[0][name], scores[1][name], seed) for name in scores[0]}
    pairs, names = _closest(images, labels, trained, held_out)
    return Privacy(len(images), len(chosen[0]), len(chosen[1]), ratios, members, pairs, names)


def synthetic_images(method: ControlledReplay, n: int) -> tuple[Tensor, Tensor]:
    """Return synthetic images (n, c, h, w) of all learned classes, and their labels (n,).

    They are those that the method would make for the next task. After the last task, a further task
    of one class is assumed.
    """
    following = copy.copy(method.dataset)
    if method.current_task + 1 == following.N_TASKS:
        following.tasks = TaskSplit((*following.tasks.sizes, 1))
    method.dataset, method.current_task = following, method.current_task + 1
    if hasattr(method.options, "buffer_images"):
        options = method.options
        method.options = dataclasses.replace(options, buffer_images=n, buffer_per_task=0)
    method.control.prepare()
    made = method.control.replayed(getattr(method, "buffer", None))
    if made is not None:
        return made
    parts = [method.control.draw(min(n - start, 256), 0, start)[:2] for start in range(0, n, 256)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _real_images(method: ControlledReplay, split: Any) -> RealImages:
    dataset: ContinualDataset = method.dataset
    batches = [batch for task in range(method.current_task + 1) for batch in dataset.plain_batches(task, split)]
    images = torch.cat([images for images, _ in batches])
    features, logits = _passed(method, images)
    return RealImages(images, torch.cat([labels for _, labels in batches]), features, logits)


@torch.no_grad()
def _passed(method: ControlledReplay, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return features (n, d) and logits (n, classes) of images (n, c, h, w)."""
    method.net.eval()
    parts = [method.logits_and_features(part) for part in images.split(method.EVALUATION_BATCH)]
    return torch.cat([features for _, features in parts]).float(), torch.cat([logits for logits, _ in parts]).float()


def _as_many(trained: Tensor, held_out: Tensor, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return for each class as many row numbers of labels ``trained`` (n,) as of ``held_out`` (m,).

    The nearest of more images would be nearer. Which are left out is random.

    Raises:
        UserError: a class has no held-out image.
    """
    pairs = []
    for label in trained.unique().tolist():
        rows = [(labels == label).nonzero().flatten() for labels in (trained, held_out)]
        n = min(map(len, rows))
        if n == 0:
            raise UserError(f"class {label} has no test images to compare with")
        shuffled = [
            some[torch.randperm(len(some), generator=seeded(seed, "as many", label)).to(some.device)] for some in rows
        ]
        pairs.append((shuffled[0][:n], shuffled[1][:n]))
    return pairs


def _scores(method: ControlledReplay, real: RealImages) -> dict[str, Tensor]:
    """Return the scores (n,) of membership by name: higher for what was more likely trained on."""
    found = {"head": real.logits.log_softmax(1).gather(1, real.labels[:, None]).squeeze(1).cpu()}
    gaussians = getattr(method, "gaussians", None)
    if gaussians is not None:
        spread = gaussians.std[real.labels].clamp_min(1e-6)
        gaps = (real.features - gaussians.mean[real.labels]) / spread
        found["statistics"] = -gaps.square().sum(1).cpu()
    return found


def _closest(images: Tensor, labels: Tensor, trained: RealImages, held_out: RealImages) -> tuple[Tensor, Tensor]:
    """Return the closest triples, see :class:`Privacy`, each real image among all of its kind."""
    distances, rows = nearest(images.flatten(1), trained.images.flatten(1))
    first = distances.argsort()[:SHOWN]
    others = nearest(images[first].flatten(1), held_out.images.flatten(1))[1]
    sides = [(images, labels, first), (trained.images, trained.labels, rows[first])]
    sides.append((held_out.images, held_out.labels, others))
    return (
        torch.stack([images[chosen] for images, _, chosen in sides], 1),
        torch.stack([labels[chosen] for _, labels, chosen in sides], 1),
    )
