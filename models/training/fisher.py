"""Compute the diagonal Fisher information of a network, and the penalty of EWC.

Gradients of single images come from ``torch.func``: no loop goes over images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

Fisher = Literal["exact", "sampled", "empirical", "weighted"]


def squared_gradients(net: nn.Module, images: Tensor, labels: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return the weighted sum over images of the squared gradients of log p(label | image).

    Args:
        net: maps images to logits. It has to be in evaluation mode: in training mode BatchNorm
            would make the gradient of one image depend on the others.
        images: (b, c, h, w). Memory is taken for b times the parameters.
        labels: (b,).
        weights: (b,), the factor of each image's squares.

    Returns:
        A tensor of the shape of each parameter, by its name.
    """
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    buffers = dict(net.named_buffers())

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(net, (parameters, buffers), (image.unsqueeze(0),))
        return F.cross_entropy(logits, label.unsqueeze(0))

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images, labels)
    return {
        name: (each.square() * weights.view(-1, *[1] * (each.dim() - 1))).sum(0) for name, each in gradients.items()
    }


def outcomes(
    logits: Tensor, labels: Tensor, kind: Fisher, generator: Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the labels (b,) whose gradients make the Fisher information, and their weights (b,).

    Args:
        logits: (b, classes), of the network.
        labels: (b,), of the images.
        kind: "exact": every class, weighted with its probability under the network. "sampled": one
            class, drawn from the network; its expectation is "exact". "empirical": the image's own
            label. "weighted": the same, times its probability (Mammoth's ``ewc_on``), so that an
            image that the network knows counts as much as one that it does not.
        generator: a CPU generator, for "sampled".
    """
    shares = logits.softmax(1)
    if kind == "exact":
        for label in range(shares.shape[1]):
            yield torch.full_like(labels, label), shares[:, label]
        return
    if kind == "sampled":
        labels = torch.multinomial(shares.cpu(), 1, generator=generator).squeeze(1).to(labels.device)
    share = shares.gather(1, labels[:, None]).squeeze(1)
    yield labels, share if kind == "weighted" else torch.ones_like(share)


def diagonal_fisher(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    kind: Fisher,
    generator: Generator | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information of each parameter, averaged over images.

    Args:
        net: maps images to logits, in evaluation mode (:func:`squared_gradients`).
        batches: (images, labels), small ones, and at least one.
        kind, generator: see :func:`outcomes`.
        after_batch: called after each batch.
    """
    total: dict[str, Tensor] = {}
    count = 0
    for images, labels in batches:
        with torch.no_grad():
            logits = net(images)
        for drawn, weights in outcomes(logits, labels, kind, generator):
            for name, squares in squared_gradients(net, images, drawn, weights).items():
                total[name] = total[name] + squares if name in total else squares
        count += len(images)
        after_batch()
    return {name: squares / count for name, squares in total.items()}


def quadratic_penalty(
    parameters: Mapping[str, Tensor], anchors: Mapping[str, Tensor], fisher: Mapping[str, Tensor]
) -> Tensor:
    """Return 1/2 sum F (theta - theta*)^2 over the parameters that have an anchor theta*.

    A parameter without one, such as the head of new classes, is free. All three are by name.
    """
    pulls = [(fisher[name] * (parameters[name] - anchor).square()).sum() for name, anchor in anchors.items()]
    return torch.stack(pulls).sum() / 2
