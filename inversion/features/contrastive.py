"""The contrastive models f_cont of contrastive feature selection (CFS).

Each class has a small network, trained to spread the features of the class evenly over the sphere.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.seeding import seeded


@dataclass(frozen=True)
class ContrastiveConfig:
    """How f_cont is trained.

    Attributes:
        epochs: 200 (App. I.1).
        lr: learning rate, 0.01 (App. I.1).
        optimizer: SGD (App. I.1); the released code takes Adam (docs/provenance.md).
        keep_best: whether the weights of the lowest batch loss are kept, as in the released code
            (docs/provenance.md), rather than the last.
        batch: features of one class in a step.
        temperature: tau of :func:`uniformity`.
    """

    epochs: int = 200
    lr: float = 0.01
    optimizer: Literal["sgd", "adam"] = "sgd"
    keep_best: bool = False
    batch: int = 64
    temperature: float = 1.0


def uniformity(z: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean over i of log mean_j exp(z_i . z_j / tau), of shape (...).

    Args:
        z: unit vectors (..., b, d); j runs over all of them, i included.
        temperature: tau.
    """
    similarity = z @ z.transpose(-1, -2) / temperature
    return (similarity.logsumexp(dim=-1) - math.log(z.shape[-2])).mean(dim=-1)


class ContrastiveModels(nn.Module):
    """The models of ``k`` classes, as batched products instead of a loop.

    A model is [Linear(d, d), BatchNorm, LeakyReLU(0.01)] twice, then scaled to length 1. Each
    class has its own weights and BatchNorm statistics.
    """

    def __init__(self, k: int, d: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(d)  # nn.Linear's default initialisation

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(k, *shape).uniform_(-bound, bound, generator=generator))

        self.weights = nn.ParameterList([draw(d, d), draw(d, d)])
        self.biases = nn.ParameterList([draw(1, d), draw(1, d)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(k * d), nn.BatchNorm1d(k * d)])

    def forward(self, features: Tensor) -> Tensor:
        """Map features (k, b, d) to unit vectors (k, b, d)."""
        k, b, d = features.shape
        for weight, bias, norm in zip(self.weights, self.biases, self.norms, strict=True):
            features = torch.baddbmm(bias, features, weight.transpose(1, 2))
            flat = norm(features.transpose(0, 1).reshape(b, k * d))
            features = F.leaky_relu(flat.view(b, k, d).transpose(0, 1), 0.01)
        return F.normalize(features, dim=-1)


def _epoch_batches(counts: list[int], batch: int, seed: int, epoch: int, classes: list[int]) -> Tensor:
    """Shuffle the rows of each class, without the incomplete batch: (steps, classes, batch)."""
    steps = counts[0] // batch
    rows = [
        torch.randperm(n, generator=seeded(seed, "f_cont", c, epoch))[: steps * batch]
        for n, c in zip(counts, classes, strict=True)
    ]
    return torch.stack(rows).view(len(counts), steps, batch).transpose(0, 1)


def _train_group(
    features: list[Tensor], classes: list[int], config: ContrastiveConfig, seed: int, pause: Callable[[], None]
) -> tuple[ContrastiveModels, Tensor]:
    """Train the models of classes with the same batch size and number of batches.

    Return them, and the loss of each: the last, or the lowest where the best is kept.
    """
    d, device = features[0].shape[1], features[0].device
    batch = min(config.batch, min(len(f) for f in features))
    # For a group of two classes (c, e) this is the stream that shuffles class c in epoch e. It does
    # no harm, and the published results were made with it.
    models = ContrastiveModels(len(classes), d, seeded(seed, "f_cont", *classes)).to(device)
    optimizer_class = torch.optim.SGD if config.optimizer == "sgd" else torch.optim.Adam
    optimizer = optimizer_class(models.parameters(), lr=config.lr)
    loss = lowest = torch.full((len(classes),), torch.inf, device=device)
    best = _copied(models) if config.keep_best else {}
    padded = nn.utils.rnn.pad_sequence(features, batch_first=True)
    which = torch.arange(len(classes), device=device)[:, None]
    for epoch in range(config.epochs):
        pause()
        for rows in _epoch_batches([len(f) for f in features], batch, seed, epoch, classes).to(
            device, non_blocking=True
        ):
            before = _copied(models) if config.keep_best else {}
            loss = uniformity(models(padded[which, rows]), config.temperature)
            if config.keep_best:
                best = _taken_where(loss.detach() < lowest, before, best)
                lowest = torch.minimum(lowest, loss.detach())
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
    if config.keep_best:
        models.load_state_dict(best)
    return models.eval(), (lowest if config.keep_best else loss.detach())


def _copied(models: ContrastiveModels) -> dict[str, Tensor]:
    """Return a copy of the state of the models, which further steps do not touch."""
    return {name: value.clone() for name, value in models.state_dict().items()}


def _taken_where(better: Tensor, now: dict[str, Tensor], best: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state ``now`` of the classes that are ``better`` (k,), and ``best`` of the others.

    Counters (0-dim) follow the newest.
    """
    chosen = {}
    for name, value in now.items():
        if value.dim() == 0:
            chosen[name] = value
        else:
            by_class, old = value.view(len(better), -1), best[name].view(len(better), -1)
            chosen[name] = torch.where(better[:, None], by_class, old).view(value.shape)
    return chosen


class ContrastiveBank:
    """The f_cont of every seen class, looked up by label.

    Attributes:
        groups: (classes, their models), for classes that were trained together.
        losses: the loss of each class at the end of its training.
    """

    def __init__(self) -> None:
        self.groups: list[tuple[list[int], ContrastiveModels]] = []
        self.losses: dict[int, float] = {}

    def __contains__(self, label: int) -> bool:
        return any(label in classes for classes, _ in self.groups)

    def embed(self, label: int, features: Tensor) -> Tensor:
        """Map features (n, d) of class ``label`` to unit vectors (n, d), without gradient.

        BatchNorm is in evaluation mode.

        Raises:
            KeyError: the class has no model.
        """
        for classes, models in self.groups:
            if label in classes:
                row = classes.index(label)
                with torch.no_grad():
                    return _one_class(models, row, features)
        raise KeyError(f"no contrastive model for class {label}")

    def followed_by(self, newer: ContrastiveBank, past: int) -> ContrastiveBank:
        """Return these models, followed by those of ``newer``.

        Args:
            newer: its class 0 becomes class ``past``.
            past: how many classes these models are of.
        """
        both = ContrastiveBank()
        both.groups = [
            *self.groups,
            *(([past + label for label in classes], models) for classes, models in newer.groups),
        ]
        both.losses = self.losses | {past + label: loss for label, loss in newer.losses.items()}
        return both

    def state(self) -> list[dict[str, object]]:
        """Return plain data for a checkpoint."""
        return [{"classes": classes, "weights": models.state_dict()} for classes, models in self.groups]

    @classmethod
    def from_state(cls, state: list[dict[str, Any]], device: torch.device | None = None) -> ContrastiveBank:
        """Return the bank that :meth:`state` describes; losses are not kept, only reported."""
        bank = cls()
        for group in state:
            k, d = len(group["classes"]), group["weights"]["weights.0"].shape[-1]
            models = ContrastiveModels(k, d, seeded(0)).to(device).eval()
            models.load_state_dict(group["weights"])
            bank.groups.append((list(group["classes"]), models))
        return bank


def _one_class(models: ContrastiveModels, row: int, features: Tensor) -> Tensor:
    d = features.shape[1]
    part = slice(row * d, (row + 1) * d)
    for weight, bias, norm in zip(models.weights, models.biases, models.norms, strict=True):
        assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
        features = torch.addmm(bias[row], features, weight[row].t())
        features = F.batch_norm(
            features, norm.running_mean[part], norm.running_var[part], norm.weight[part], norm.bias[part], eps=norm.eps
        )
        features = F.leaky_relu(features, 0.01)
    return F.normalize(features, dim=-1)


def train_contrastive(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    config: ContrastiveConfig,
    seed: int,
    pause: Callable[[], None] = lambda: None,
) -> ContrastiveBank:
    """Train f_cont for classes 0..n_classes-1.

    Each class is trained on its own features alone. Classes with equally many batches share one
    batched network. A class of a single feature has nothing to spread: it gets no model.

    Args:
        features: (n, d).
        labels: (n,).
        n_classes: how many classes there are.
        config: the settings.
        seed: of the first weights and of the order of the features.
        pause: called once an epoch; it may raise to stop, and nothing is kept then.
    """
    per_class = [features[labels == c].float() for c in range(n_classes)]
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for c, f in enumerate(per_class):
        if len(f) > 1:
            batch = min(config.batch, len(f))
            groups[batch, len(f) // batch].append(c)
    bank = ContrastiveBank()
    for classes in groups.values():
        models, losses = _train_group([per_class[c] for c in classes], classes, config, seed, pause)
        bank.groups.append((classes, models))
        bank.losses.update(zip(classes, losses.tolist(), strict=True))
    return bank
