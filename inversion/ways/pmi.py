"""Per-layer model inversion (PMI): invert one piece at a time, from the sampled feature down to the image (Eq. 26)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.features.statistics import Moments, tap_kl
from pmi_cl.inversion.networks.token_network import Invertible


@dataclass(frozen=True)
class PmiConfig:
    """The loss of one layer is beta x MSE + alpha x (KL of the layer's input + KL of the BatchNorm inputs inside it).

    Attributes:
        steps: of each piece, 100 (App. I.1); the released code's are 50.
        lr: Adam's rate, 0.8 (App. I.1), which is the released code's too.
        alpha: weight of the statistics, 1.6 (App. I.1); the released code multiplies its base 0.25 by 16 blocks and by 20, to 80.
        beta: weight of the MSE, 1.0 (App. I.1).
        prior: what is known of a layer's input: ``measured`` moments, or (beta, gamma^2) of the last BatchNorm before it
            (``bn_affine``, the released code's; it describes the residual branch without the skip: docs/provenance.md).
        boost: the released code's safety: a term above its first value doubles its weight, up to 10 times (the prior: 5 times). It
            steers the gradient alone: the best iterate is that of the lowest loss without it.
        last_at_lowest: the lowest piece gives its last iterate, not its best (the released code's, for CLIP).
        lowest_steps: of the lowest piece; None: ``steps``. The released code's for CLIP: 1200.
        grids: the lowest piece's map is optimised at these resolutions one after the other, equally long, seen enlarged to its own; ():
            at its own throughout. The released code's for CLIP: 2, 4, 8, 14 (docs/provenance.md).
    """

    steps: int = 100
    lr: float = 0.8
    alpha: float = 1.6
    beta: float = 1.0
    prior: Literal["measured", "bn_affine"] = "measured"
    boost: bool = False
    last_at_lowest: bool = False
    lowest_steps: int | None = None
    grids: tuple[int, ...] = ()

    def steps_of(self, layer: int) -> int:
        """How many steps piece ``layer`` takes."""
        return self.steps if layer > 0 or self.lowest_steps is None else self.lowest_steps

    def grid_at(self, layer: int, step: int) -> int | None:
        """The resolution at which piece ``layer`` is optimised in step ``step``; None: its own."""
        if layer > 0 or not self.grids:
            return None
        return self.grids[min(step * len(self.grids) // max(self.steps_of(layer), 1), len(self.grids) - 1)]


def seen_at(value: Tensor, grid: int | None) -> Tensor:
    """A map (b, c, h, w) as a grid of ``grid`` x ``grid`` cells shows it, enlarged bilinearly to its own size."""
    if grid is None or grid >= min(value.shape[-2:]):
        return value
    return F.interpolate(
        F.adaptive_avg_pool2d(value, grid), size=value.shape[-2:], mode="bilinear", align_corners=False
    )


class Boost:
    """Weights that double while their term exceeds its first value; ``limits`` cap them. All on the device, nothing is read back."""

    def __init__(self, limits: tuple[float, ...], device: torch.device | None = None) -> None:
        self.limits = torch.tensor(limits, device=device)
        self.reset()

    def reset(self) -> None:
        """Begin anew with plain weights."""
        self.first: Tensor | None = None
        self.weights: Tensor | None = None

    def __call__(self, terms: Tensor) -> Tensor:
        """Terms (k,) to their weights (k,)."""
        now = terms.detach()
        if self.first is None or self.weights is None:
            self.first, self.weights = now.clone(), torch.ones_like(now)
        self.weights = torch.where(now > self.first, torch.minimum(self.weights * 2, self.limits), self.weights)
        return self.weights

    def state(self) -> dict[str, Tensor]:
        """Plain data for a checkpoint."""
        return {} if self.first is None or self.weights is None else {"first": self.first, "weights": self.weights}

    def load(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`, wherever its tensors are."""
        self.first, self.weights = (
            None if name not in state else state[name].to(self.limits.device) for name in ("first", "weights")
        )


class LayerLoss:
    """The loss of piece ``layer`` (0 is the stem) as a function of its input, for the target that its output should have."""

    def __init__(
        self,
        network: Invertible,
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
        """(MSE to the target, KL inside the piece, KL of the piece's input): (3,)."""
        zero = value.new_zeros(())
        prior = zero
        if self.prior is not None and self.prior_var is not None:
            value, prior = tap_kl(value, self.prior.mean, self.prior_var, self.network.direction, self.prior.axis)
        output, kls = self.network.run(value, self.layer, self.layer + 1, self.context)
        return torch.stack([F.mse_loss(output, self.target), torch.stack(kls).sum() if kls else zero, prior])

    def __call__(self, value: Tensor, step: int) -> Tensor:
        """Input (b, c, h, w) to a scalar: the loss without the boost, with the boosted loss's gradient."""
        if step == 0 and self.boost is not None:
            self.boost.reset()  # a descent that starts again at half the rate starts with plain weights
        weighted = self.terms(seen_at(value, self.config.grid_at(self.layer, step))) * self.weights
        if self.boost is None:
            return weighted.sum()
        boosted = (weighted * self.boost(weighted)).sum()
        return weighted.detach().sum() + (boosted - boosted.detach())


def bn_affine_moments(piece: nn.Module) -> Moments | None:
    """(beta, gamma^2) of the last BatchNorm in a piece: the released code's stand-in for the moments of the next piece's input."""
    norms = [m for m in piece.modules() if isinstance(m, nn.BatchNorm2d) and m.affine]
    if not norms:
        return None
    return Moments(norms[-1].bias.detach().clone(), norms[-1].weight.detach() ** 2 + 1e-8, 1)
