"""Train and cache the networks of the inversion benchmarks.

In ``inversion.py``, network A is inverted, and network B judges the images of A independently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.backbones import resnet_cifar
from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.datasets.continual_dataset import ContinualDataset
from pmi_cl.datasets.seq_cifar100 import SeqCifar100
from pmi_cl.datasets.seq_digits import SeqDigits
from pmi_cl.seeding import seeded
from pmi_cl.utils.records import checkpoints

CLASSES = 10
CLASS_ORDER = "np1993"  # the ten classes are the first of this order, as in the prototypes' measurements


@dataclass(frozen=True)
class JudgeSettings:
    """The training of both networks. They differ in their seed alone: weights, order, augmentation.

    Attributes:
        backbone: a function of :mod:`pmi_cl.backbones.resnet_cifar`.
        epochs: over all training images.
        images: training images of each class.
        batch: images a step.
        lr: the highest rate: a fifth of the steps up, the rest down to 0 by a cosine.
        weight_decay: of SGD.
    """

    backbone: str = "resnet32"
    epochs: int = 40
    images: int = 500
    batch: int = 64
    lr: float = 0.1
    weight_decay: float = 5e-4


@dataclass(frozen=True)
class Judge:
    """A trained network in evaluation mode and its accuracy on the test images, from 0 to 1."""

    network: ResNetCifar
    accuracy: float


def load_cifar(folder: Path, images: int, offline: bool = False) -> SeqCifar100:
    """Load the ten classes as one task, ``images`` training images of each.

    Raises:
        UserError: the files are missing or damaged.
    """
    args = SimpleNamespace(
        base_path=str(folder),
        offline=offline,
        n_classes=CLASSES,
        n_tasks=1,
        class_order=CLASS_ORDER,
        train_per_class=images,
    )
    SeqCifar100.check(args)
    return SeqCifar100(args, "cpu")


def load_digits(images: int) -> SeqDigits:
    """Load the digits of the package as one task, at most ``images`` training images of each."""
    args = SimpleNamespace(n_classes=CLASSES, n_tasks=1, class_order="natural", train_per_class=images)
    return SeqDigits(args, "cpu")


def obtain_judge(
    data: ContinualDataset, settings: JudgeSettings, seed: int, folder: Path, say: Callable[[str], None]
) -> Judge:
    """Return the network of a seed: read from ``folder``, or trained and left there."""
    named = {"network": "judge", "seed": seed, **asdict(settings)}
    path = folder / f"{settings.backbone}-{settings.epochs}-epochs-{settings.images}-images-seed-{seed}.pt"
    network = _new_network(settings.backbone, seed)
    if path.is_file():
        state = checkpoints.load(path, named)
        network.load_state_dict(state["weights"])
        return Judge(network.eval(), state["accuracy"])
    _train(network, data, settings, seed, say)
    accuracy = measure_accuracy(network, data)
    say(f"network of seed {seed}: {accuracy:.3f} of the test images right")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.save(path, {**named, "weights": network.state_dict(), "accuracy": accuracy})
    return Judge(network, accuracy)


def measure_accuracy(network: ResNetCifar, data: ContinualDataset) -> float:
    """Return the share of the test images whose class is recognised.

    Leave the network in evaluation mode.
    """
    network.eval()
    with torch.no_grad():
        right = [network(images).argmax(1) == labels for images, labels in data.plain_batches(0, "test")]
    return float(torch.cat(right).float().mean())


def _new_network(backbone: str, seed: int) -> ResNetCifar:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: ResNetCifar = getattr(resnet_cifar, backbone)()
        network.head.grow(CLASSES)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _train(
    network: ResNetCifar, data: ContinualDataset, settings: JudgeSettings, seed: int, say: Callable[[str], None]
) -> None:
    """Train by SGD with Nesterov's momentum on random crops and mirror images."""
    network.train()
    steps = settings.epochs * (len(data.train.labels) // settings.batch)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=settings.lr, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps, pct_start=0.2)
    for epoch in range(settings.epochs):
        for step, rows in enumerate(_shuffled(len(data.train.labels), settings.batch, seed, epoch)):
            images = data.augment(data.train.images[rows], seeded(seed, "augment", epoch, step))
            loss = F.cross_entropy(network(images), data.train.labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 10 == 0 or epoch + 1 == settings.epochs:
            say(
                f"network of seed {seed}: epoch {epoch + 1} of {settings.epochs}, "
                f"training loss {float(loss.detach()):.3f}"
            )


def _shuffled(count: int, batch: int, seed: int, epoch: int) -> list[Tensor]:
    """Yield row numbers in random order, in whole batches."""
    order = torch.randperm(count, generator=seeded(seed, "order", epoch))
    return list(order[: count // batch * batch].split(batch))
