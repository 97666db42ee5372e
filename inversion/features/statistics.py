"""Moments of the values of a layer, and the KL that compares a synthetic batch with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pmi_cl.machine.state_fields import tensor_field, whole_field

Direction = Literal["synthetic_to_real", "real_to_synthetic", "l2"]  # "l2" is no KL: moment_distance()
Axis = Literal["channel", "token"]
AXES = get_args(Axis)

VARIANCE_FLOOR = 1e-8  # added to the synthetic variance
DEAD_SHARE = 1e-3  # of the mean variance: below it a channel is dead


@dataclass(frozen=True)
class Moments:
    """Mean and biased variance of each channel, over ``count`` values each.

    Tokens (b, t, c) may have moments of each position instead, pooled over the batch and the
    channels. These are what the released code keeps of a transformer (docs/provenance.md).

    Attributes:
        mean: (c,), or (t,) where ``axis`` is "token".
        var: (c,) or (t,), likewise.
        count: how many values each mean is over.
        axis: "channel" or "token".
    """

    mean: Tensor
    var: Tensor
    count: int
    axis: Axis = "channel"

    def state(self) -> dict[str, Any]:
        """Return plain data for a checkpoint."""
        return {"mean": self.mean, "var": self.var, "count": self.count, "axis": self.axis}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device | None = None) -> Moments:
        """Return the moments that :meth:`state` describes."""
        mean, axis = tensor_field(state["mean"], None), state.get("axis", "channel")
        if axis not in AXES:
            raise ValueError(f"there are no moments by {axis}")
        var = tensor_field(state["var"], *mean.shape)
        return cls(mean.to(device), var.to(device), whole_field(state["count"], low=1), axis)

    def floored_var(self) -> Tensor:
        """Return the variance, raised for dead channels.

        A channel without variance over the real data would rule the KL of all others.
        """
        floor = DEAD_SHARE * self.var.mean().double()  # rounded once, and not read back to the host
        return self.var.clamp_min(floor.to(self.var.dtype))


def as_rows(x: Tensor, axis: Axis = "channel") -> Tensor:
    """View values as rows (b, m, c): channels last, m values of each.

    Args:
        x: a map (b, c, h, w), a sequence (b, t, c) or features (b, c). No copy is made of a
            ``channels_last`` map.
        axis: "token" turns a sequence into (b, c, t) and leaves all else as it is.

    Raises:
        ValueError: ``x`` has another number of dimensions.
    """
    if x.dim() == 4:
        return x.permute(0, 2, 3, 1).flatten(1, 2)
    if x.dim() == 3:
        return x.transpose(1, 2) if axis == "token" else x
    if x.dim() == 2:
        return x.unsqueeze(1)
    raise ValueError(f"statistics need 2, 3 or 4 dimensions, not {x.dim()}")


def power_sums(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum and the sum of squares (c,) of rows (b, m, c).

    They are in float32, or in float64 for float64 rows. They are computed as matrix products with
    a vector of ones: on a CPU three times as fast as reductions over a strided axis. The partial
    sums of each sample are added in float32, so that bfloat16 rows lose nothing to the rounding
    of a long sum.
    """
    ones = rows.new_ones(rows.shape[0], 1, rows.shape[1])
    wide = torch.promote_types(rows.dtype, torch.float32)
    total = torch.bmm(ones, rows).to(wide).sum(dim=(0, 1))
    if rows.dtype == torch.bfloat16 and rows.shape[2] <= 64:
        # the diagonal of a small Gram matrix beats squaring in bfloat16
        squares = torch.bmm(rows.transpose(1, 2), rows).diagonal(dim1=1, dim2=2).to(wide).sum(dim=0)
    else:
        squares = torch.bmm(ones, rows * rows).to(wide).sum(dim=(0, 1))
    return total, squares


def batch_moments(x: Tensor) -> Moments:
    """Return the moments of each channel of a batch, in one pass, in float32 or wider.

    Args:
        x: as in :func:`as_rows`.
    """
    rows = as_rows(x)
    count = rows.shape[0] * rows.shape[1]
    total, squares = power_sums(rows)
    mean = total / count
    return Moments(mean, (squares / count - mean * mean).clamp_min(0), count)


def pool_moments(parts: Iterable[Moments]) -> Moments:
    """Return the exact moments of the union of all parts, computed in float64.

    mu = sum n_i mu_i / n, E[x^2] likewise, var = E[x^2] - mu^2.

    Raises:
        ValueError: there are no parts, or they are along different axes.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("nothing to pool")
    if len({(part.axis, part.mean.shape) for part in parts}) > 1:
        raise ValueError("moments of different axes or lengths do not pool")
    count = sum(part.count for part in parts)
    mean = torch.stack([part.mean.double() * (part.count / count) for part in parts]).sum(0)
    squares = [(part.var.double() + part.mean.double() ** 2) * (part.count / count) for part in parts]
    second = torch.stack(squares).sum(0)
    return Moments(mean.float(), (second - mean * mean).clamp_min(0).float(), count, parts[0].axis)


def gaussian_kl(
    mean: Tensor, var: Tensor, real_mean: Tensor, real_var: Tensor, direction: Direction = "synthetic_to_real"
) -> Tensor:
    """Return the KL between two diagonal Gaussians, averaged over channels: a scalar.

    Args:
        mean: (c,), of the synthetic batch.
        var: (c,), of the synthetic batch; 1e-8 is added to it.
        real_mean: (c,), stored.
        real_var: (c,), stored.
        direction: ``synthetic_to_real`` is KL(synthetic || real), that of the paper (App. Eq.
            20-21); ``real_to_synthetic`` is KL(real || synthetic), that of the released code of
            R-DFCIL.
    """
    var = var + VARIANCE_FLOOR
    if direction == "real_to_synthetic":
        mean, var, real_mean, real_var = real_mean, real_var, mean, var
    return 0.5 * (real_var.log() - var.log() - 1 + (var + (mean - real_mean) ** 2) / real_var).mean()


def moment_distance(
    mean: Tensor, var: Tensor, real_mean: Tensor, real_var: Tensor, scale: Tensor | None = None
) -> Tensor:
    """Return DeepInversion's comparison of moments (Yin et al., CVPR 2020): a scalar.

    It is the length of the difference of the means plus that of the difference of the variances. It
    is a sum over channels, not a mean, and unlike the KL it depends on the unit of each channel.

    Args:
        mean, var: (c,), of the synthetic batch.
        real_mean, real_var: (c,), stored.
        scale: (c,), by which values are multiplied before they are compared; None: they are not.
    """
    means, variances = mean - real_mean, var - real_var
    if scale is not None:
        means, variances = means * scale, variances * scale**2
    return means.norm() + variances.norm()


class _TapKL(torch.autograd.Function):
    """Pass a batch through and compare it with stored moments; add both gradients in one sweep.

    The gradient of the KL with respect to a value x is affine in it, a_c + b_c x: that of the mean
    is constant, that of the variance is linear.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, real_mean: Tensor, real_var: Tensor, direction: Direction
    ) -> tuple[Tensor, Tensor]:
        moments = batch_moments(x)
        ctx.save_for_backward(x, moments.mean, moments.var, real_mean, real_var)
        ctx.count, ctx.direction = moments.count, direction
        return x.view_as(x), gaussian_kl(moments.mean, moments.var, real_mean, real_var, direction)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        grad_x, grad_kl = grads
        x, mean, var, real_mean, real_var = ctx.saved_tensors
        var = var + VARIANCE_FLOOR
        scale = grad_kl / mean.numel()
        if ctx.direction == "synthetic_to_real":
            d_mean, d_var = (mean - real_mean) / real_var, 0.5 * (1 / real_var - 1 / var)
        else:
            d_mean = (mean - real_mean) / var
            d_var = 0.5 * (1 / var - (real_var + (mean - real_mean) ** 2) / var**2)
        slope = 2 * scale * d_var / ctx.count
        offset = scale * d_mean / ctx.count - slope * mean
        return _add_affine(grad_x, x, offset, slope), None, None, None


def _add_affine(grad: Tensor, x: Tensor, offset: Tensor, slope: Tensor) -> Tensor:
    """Return grad + offset_c + slope_c * x.

    It is computed on rows as long as a whole sample: short inner loops are slow on a CPU.
    """
    rows = as_rows(x)
    repeat = rows.shape[1]
    offset, slope = offset.to(x.dtype).repeat(repeat), slope.to(x.dtype).repeat(repeat)
    flat = torch.addcmul(as_rows(grad).flatten(1), rows.flatten(1), slope).add_(offset)
    if x.dim() == 4:
        b, c, h, w = x.shape
        return flat.view(b, h, w, c).permute(0, 3, 1, 2)
    return flat.view(x.shape)


def tap_kl(
    x: Tensor,
    real_mean: Tensor,
    real_var: Tensor,
    direction: Direction = "synthetic_to_real",
    axis: Axis = "channel",
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ``x`` and the KL of its batch moments to the stored ones, differentiable through both.

    The backward pass is fused (:class:`_TapKL`). While ``torch.compile`` traces, plain operations
    are used instead: the compiler fuses them itself. Under the direction "l2" there is
    :func:`moment_distance` in place of the KL; ``scale`` is for it alone.
    """
    if axis == "token" and x.dim() == 3:
        x, kl = tap_kl(x.transpose(1, 2), real_mean, real_var, direction)
        return x.transpose(1, 2), kl
    if direction == "l2":
        moments = batch_moments(x)
        return x, moment_distance(moments.mean, moments.var, real_mean, real_var, scale)
    if torch.compiler.is_compiling():
        rows = as_rows(x).flatten(0, 1)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        mean = rows.mean(0)
        return x, gaussian_kl(mean, ((rows * rows).mean(0) - mean * mean).clamp_min(0), real_mean, real_var, direction)
    x, kl = _TapKL.apply(x, real_mean, real_var, direction)
    return x, kl


class StatisticsTap(nn.Module):
    """Pass the values of a layer through and compare their batch moments with stored ones.

    Attributes:
        mean: (c,), stored.
        var: (c,), stored.
        direction: of the KL, as in :func:`gaussian_kl`, or "l2".
        axis: along which the moments are kept.
        scale: (c,), turns the values into those that the network itself would have here, which
            "l2" compares. The KL does not depend on it. None: they are the same.
    """

    def __init__(
        self, mean: Tensor, var: Tensor, direction: Direction, axis: Axis = "channel", scale: Tensor | None = None
    ) -> None:
        super().__init__()
        self.direction: Direction = direction
        self.axis: Axis = axis
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("var", var.detach().clone())
        self.scale: Tensor | None
        self.register_buffer("scale", scale.detach().clone() if scale is not None and direction == "l2" else None)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map values (b, c, ...) or tokens (b, t, c) to the same values and their KL."""
        return tap_kl(x, self.mean, self.var, self.direction, self.axis, self.scale)
