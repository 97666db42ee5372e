"""Per-layer model inversion (PMI, Eq. 26): one piece at a time, from the feature to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pmi_cl.inversion.features.statistics import Moments, tap_kl
from pmi_cl.inversion.networks.protocol import InvertibleNetwork
from pmi_cl.machine.state_fields import tensor_field


@dataclass(frozen=True)
class PmiConfig:
    """The settings of PMI.

    The loss of a layer is beta x MSE + alpha x (KL of the input of the layer + KL of the BatchNorm
    inputs inside it).

    Attributes:
        steps: of each piece, 100 (App. I.1); 50 in the released code.
        lr: learning rate of Adam, 0.8 (App. I.1, and the released code).
        alpha: weight of the statistics, 1.6 (App. I.1). The released code multiplies its base 0.25
            by 16 blocks and by 20, to 80.
        beta: weight of the MSE, 1.0 (App. I.1).
        prior: what is known of the input of a layer: ``measured`` moments, or ``bn_affine``, (beta,
            gamma^2) of the last BatchNorm before it. The latter is that of the released code; it
            describes the residual branch without the skip (docs/provenance.md).
        boost: whether a term above its first value doubles its weight, up to 10 times (the prior: 5
            times), which the released code does for safety. It steers the gradient alone: the loss
            that decides which iterate is the best is without it.
        batch: the most targets whose layers are inverted together; None, or fewer than the
            full-model stage takes: as many as it takes. 4000 in the released code.
        last_at_lowest: whether the lowest piece gives its last iterate, not its best (the released
            code for CLIP).
        lowest_steps: of the lowest piece; None: ``steps``. 1200 in the released code for CLIP.
        grids: the resolutions at which the map of the lowest piece is optimised one after the
            other, for equally many steps, enlarged to its own; (): at its own throughout. 2, 4, 8,
            14 in the released code for CLIP (docs/provenance.md).
    """

    steps: int = 100
    lr: float = 0.8
    alpha: float = 1.6
    beta: float = 1.0
    prior: Literal["measured", "bn_affine"] = "measured"
    boost: bool = False
    batch: int | None = None
    last_at_lowest: bool = False
    lowest_steps: int | None = None
    grids: tuple[int, ...] = ()

    def steps_of(self, layer: int) -> int:
        """Return how many steps piece ``layer`` takes."""
        return self.steps if layer > 0 or self.lowest_steps is None else self.lowest_steps

    def grid_at(self, layer: int, step: int) -> int | None:
        """Return the resolution at which ``layer`` is optimised in ``step``; None: its own."""
        if layer > 0 or not self.grids:
            return None
        return self.grids[min(step * len(self.grids) // max(self.steps_of(layer), 1), len(self.grids) - 1)]


def seen_at(value: Tensor, grid: int | None) -> Tensor:
    """Average a map (b, c, h, w) over ``grid`` x ``grid`` cells, enlarged to its own size."""
    if grid is None or grid >= min(value.shape[-2:]):
        return value
    return F.interpolate(
        F.adaptive_avg_pool2d(value, grid), size=value.shape[-2:], mode="bilinear", align_corners=False
    )


class Boost:
    """Weights of terms that double while their term exceeds its first value.

    All of it stays on the device; nothing is read back.

    Attributes:
        limits: (k,), the highest weights.
        first: (k,), the first values of the terms; None before the first step.
        weights: (k,), as they now are; None before the first step.
    """

    def __init__(self, limits: tuple[float, ...], device: torch.device | None = None) -> None:
        self.limits = torch.tensor(limits, device=device)
        self.reset()

    def reset(self) -> None:
        """Start anew with weights of 1."""
        self.first: Tensor | None = None
        self.weights: Tensor | None = None

    def __call__(self, terms: Tensor) -> Tensor:
        """Map terms (k,) to their weights (k,)."""
        now = terms.detach()
        if self.first is None or self.weights is None:
            self.first, self.weights = now.clone(), torch.ones_like(now)
        self.weights = torch.where(now > self.first, torch.minimum(self.weights * 2, self.limits), self.weights)
        return self.weights

    def steered(self, terms: Tensor) -> Tensor:
        """Return the plain sum of terms (k,), with the gradient of their boosted sum."""
        boosted = (terms * self(terms)).sum()
        return terms.detach().sum() + (boosted - boosted.detach())

    def state(self) -> dict[str, Tensor]:
        """Return plain data for a checkpoint."""
        return {} if self.first is None or self.weights is None else {"first": self.first, "weights": self.weights}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on where :meth:`state` was taken, wherever its tensors are."""
        self.first, self.weights = (
            None if name not in state else tensor_field(state[name], *self.limits.shape).to(self.limits.device)
            for name in ("first", "weights")
        )


class LayerLoss:
    """The loss of one piece as a function of its input.

    Attributes:
        network: which the piece belongs to.
        layer: the number of the piece, 0 for the stem.
        target: what the output of the piece should be.
        prior: the moments that its input should have; None where they are not known.
        config: the settings.
        context: (b, dq), for a network whose pieces take one.
        boost: of the weights of the terms; None without.
    """

    def __init__(
        self,
        network: InvertibleNetwork,
        layer: int,
        target: Tensor,
        prior: Moments | None,
        config: PmiConfig,
        context: Tensor | None = None,
    ) -> None:
        self.network, self.layer, self.target, self.config, self.context = network, layer, target, config, context
        self.prior = prior if layer > 0 or network.input_prior else None  # an image has no stored layer statistics
        self.weights = target.new_tensor([config.beta, config.alpha, config.alpha])
        self.prior_var = prior.floored_var() if prior is not None else None
        self.boost = Boost((10.0, 10.0, 5.0), target.device) if config.boost else None

    def terms(self, value: Tensor) -> Tensor:
        """Return (MSE to the target, KL inside the piece, KL of its input), (3,)."""
        zero = value.new_zeros(())
        prior = zero
        if self.prior is not None and self.prior_var is not None:
            value, prior = tap_kl(value, self.prior.mean, self.prior_var, self.network.direction, self.prior.axis)
        output, kls = self.network.run(value, self.layer, self.layer + 1, self.context)
        return torch.stack([F.mse_loss(output, self.target), torch.stack(kls).sum() if kls else zero, prior])

    def __call__(self, value: Tensor, step: int) -> Tensor:
        """Map an input (b, ...) to the loss without boost, with the gradient of the boosted one."""
        if step == 0 and self.boost is not None:
            self.boost.reset()  # a descent that starts again at half the rate starts with plain weights
        weighted = self.terms(seen_at(value, self.config.grid_at(self.layer, step))) * self.weights
        if self.boost is None:
            return weighted.sum()
        return self.boost.steered(weighted)
