"""The engine's formulas a second time, slow and plain: loops, hooks and torch.distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

FLOOR = 1e-8  # added to the synthetic variance


def reference_kl(mean: Tensor, var: Tensor, real_mean: Tensor, real_var: Tensor, direction: str) -> Tensor:
    """Return the KL between diagonal Gaussians by torch.distributions, averaged over channels."""
    synthetic, real = Normal(mean, (var + FLOOR).sqrt()), Normal(real_mean, real_var.sqrt())
    pair = (synthetic, real) if direction == "synthetic_to_real" else (real, synthetic)
    return kl_divergence(*pair).mean()


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel by autograd's own formulas.

    Channels are dimension 1 of 2 or 4, the last of 3.
    """
    axes = (0, 1) if x.dim() == 3 else tuple(d for d in range(x.dim()) if d != 1)
    var, mean = torch.var_mean(x, dim=axes, unbiased=False)
    return mean, var


def numpy_moments(batches: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and biased variance per channel of all batches (b, c, ...), in float64."""
    rows = np.concatenate([np.moveaxis(batch.double().numpy(), 1, -1).reshape(-1, batch.shape[1]) for batch in batches])
    return rows.mean(0), rows.var(0)


def hooked_kls(model: nn.Module, images: Tensor, direction: str = "synthetic_to_real") -> tuple[Any, list[Tensor]]:
    """Return the model's output, and the KL at every BatchNorm input, caught by a hook.

    This is what the naive loop does, in evaluation mode.
    """
    kls: list[Tensor] = []

    def compare(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, var = channel_moments(inputs[0])
        kls.append(reference_kl(mean, var, norm.running_mean, norm.running_var, direction))  # type: ignore[arg-type]

    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    handles = [norm.register_forward_pre_hook(compare) for norm in norms]
    try:
        return model.eval()(images), kls
    finally:
        for handle in handles:
            handle.remove()


def loop_uniformity(z: Tensor, temperature: float) -> float:
    """Return the loss of f_cont for unit vectors z (b, d), as a double loop."""
    total = 0.0
    for i in range(len(z)):
        inner = [float(torch.exp(torch.dot(z[i], z[j]) / temperature)) for j in range(len(z))]
        total += float(np.log(sum(inner) / len(z)))
    return total / len(z)


def loop_selection(
    draw: Callable[[int], Tensor], embed: Callable[[Tensor], Tensor], n: int, ratio: float, steps: int, smallest: int
) -> Tensor:
    """Return what CFS selects before its moment correction, as a double loop."""
    per_round = max(n // steps, smallest)
    chosen = list(draw(min(per_round, n)))
    while len(chosen) < n:
        candidates = draw(int(per_round / ratio))
        z, z_chosen = embed(candidates), embed(torch.stack(chosen))
        scores = [sum(float(torch.dot(one, other)) for other in z_chosen) / len(z_chosen) for one in z]
        best = np.argsort(scores, kind="stable")[: min(per_round, n - len(chosen))]
        chosen += [candidates[row] for row in best]
    return torch.stack(chosen)


def mean_pairwise_cosine(z: Tensor) -> float:
    """Return the mean of z_i . z_j over i != j."""
    products = (z @ z.t()).double()
    return float((products.sum() - products.trace()) / (len(z) * (len(z) - 1)))


def loop_total_variation(images: Tensor) -> float:
    """Return the mean squared difference of neighbours, down plus across, pixel by pixel."""
    down, across = [], []
    for image in images:
        for channel in image:
            height, width = channel.shape
            for row in range(height):
                for column in range(width):
                    if row + 1 < height:
                        down.append(float(channel[row + 1, column] - channel[row, column]) ** 2)
                    if column + 1 < width:
                        across.append(float(channel[row, column + 1] - channel[row, column]) ** 2)
    return float(np.mean(down) + np.mean(across))


def clip_losses(
    model: Any,
    real: tuple[Tensor, Tensor],
    old: tuple[Tensor, Tensor, Tensor],
    n_old: int,
    weights: dict[str, float],
) -> dict[str, Tensor]:
    """Return the losses of a step of PMI on a CLIP, and those of its texts where ``weights`` has
    them.

    Args:
        real: features (b, d) and labels (b,) of new classes.
        old: features, labels and the teacher's logits of synthetic samples.
        weights: of "ce", "hkd" and perhaps "tkd" and "tft" in this task.
    """
    (features, labels), (old_features, old_labels, teacher) = real, old
    seen = model.n_seen_classes
    logits, old_logits = (
        model.class_logits(features, range(n_old, seen)),
        model.class_logits(old_features, range(n_old)),
    )
    losses = {
        "ce": -logits.log_softmax(1)[range(len(labels)), labels - n_old].mean(),
        "hkd": (old_logits - teacher).abs().mean(),
    }
    if "tkd" in weights:
        text = model.classifier.features(range(seen))
        both = torch.cat([features, old_features]).detach()
        every = model.net.scale() * both / both.norm(dim=1, keepdim=True) @ text.T
        losses["tkd"] = (text[:n_old] - model.replay.old_text).abs().mean()
        losses["tft"] = -every.log_softmax(1)[range(len(every)), torch.cat([labels, old_labels])].mean()
    return {name: weights[name] * value for name, value in losses.items()}
