"""Test moments, their pooling, and the KL with its fused backward.

References are numpy, torch.distributions and autograd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pmi_cl.inversion.features.statistics import (
    Direction,
    Moments,
    as_rows,
    batch_moments,
    gaussian_kl,
    pool_moments,
    tap_kl,
)
from pmi_cl.seeding import seeded
from tests.support.slow_references import channel_moments, numpy_moments, reference_kl

DIRECTIONS: tuple[Direction, ...] = ("synthetic_to_real", "real_to_synthetic")
SHAPES = [(7, 5), (4, 6, 5), (3, 5, 4, 6)]  # features, tokens, maps: five channels each


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=seeded(0, *shape), dtype=dtype) * 1.7 + 0.6


def real_moments(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.linspace(-0.5, 0.7, 5, dtype=dtype), torch.linspace(0.4, 2.0, 5, dtype=dtype)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_kl_equals_torch_distributions(direction: Direction) -> None:
    mean, var = values((5,)), values((5,)).abs()
    expected = reference_kl(mean, var, *real_moments(), direction)
    torch.testing.assert_close(gaussian_kl(mean, var, *real_moments(), direction), expected, rtol=1e-12, atol=1e-12)


def test_the_two_directions_differ_and_the_papers_explodes_for_a_small_real_variance() -> None:
    ones = torch.ones(1)
    forward, backward = (gaussian_kl(0 * ones, ones, 0 * ones, 1e-4 * ones, direction) for direction in DIRECTIONS)
    assert forward > 4e3 and 0 < backward < 7


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_kl_is_zero_for_equal_moments_and_positive_otherwise(direction: Direction) -> None:
    mean, var = real_moments()
    assert abs(float(gaussian_kl(mean, var, mean, var, direction))) < 1e-8
    for other_mean, other_var in ((mean + 0.1, var), (mean, var * 1.2), (mean, var * 0.8)):
        assert gaussian_kl(other_mean, other_var, mean, var, direction) > 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_moments_equal_numpy(shape: tuple[int, ...]) -> None:
    x = values(shape)
    moments = batch_moments(x)
    channels_second = x.transpose(1, -1) if x.dim() == 3 else x
    mean, var = numpy_moments([channels_second])
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(moments.var, var, rtol=1e-12)
    assert moments.count == x.numel() // 5


def test_rows_of_a_channels_last_map_are_a_view() -> None:
    x = values((3, 5, 4, 6)).contiguous(memory_format=torch.channels_last)
    assert as_rows(x).data_ptr() == x.data_ptr()
    with pytest.raises(ValueError, match="not 5"):
        as_rows(torch.zeros(1, 1, 1, 1, 1))


@pytest.mark.parametrize("channels", [16, 96])  # either side of the Gram matrix's limit
def test_bfloat16_moments_are_close(channels: int) -> None:
    x = (torch.randn(64, channels, 8, 8, generator=seeded(1)) * 1.5 + 0.8).bfloat16()
    moments = batch_moments(x)
    assert moments.mean.dtype == moments.var.dtype == torch.float32
    mean, var = numpy_moments([x.float()])
    np.testing.assert_allclose(moments.mean, mean, atol=3e-3)
    np.testing.assert_allclose(moments.var, var, rtol=5e-3)


def test_pooling_unequal_batches_equals_numpy_on_all_of_them() -> None:
    batches = [values((count, 5, 3, 2), torch.float32) * scale for count, scale in ((1, 3.0), (7, 1.0), (20, 0.2))]
    pooled = pool_moments(batch_moments(batch) for batch in batches)
    mean, var = numpy_moments(batches)
    np.testing.assert_allclose(pooled.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled.var, var, rtol=1e-5)
    assert pooled.count == 28 * 6


def test_pooling_in_stages_equals_pooling_at_once() -> None:
    parts = [batch_moments(values((count, 5))) for count in (3, 9, 4)]
    once, staged = pool_moments(parts), pool_moments([pool_moments(parts[:2]), parts[2]])
    torch.testing.assert_close(once.var, staged.var, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="nothing to pool"):
        pool_moments([])


def test_moments_survive_a_checkpoint() -> None:
    moments = batch_moments(values((6, 5), torch.float32))
    again = Moments.from_state(moments.state())
    assert torch.equal(again.mean, moments.mean) and torch.equal(again.var, moments.var) and again.count == 6


def tap_loss(x: Tensor, weights: Tensor, direction: Direction, tap: Any = tap_kl) -> Tensor:
    """Return a scalar that needs both outputs of the tap, so that both gradients meet."""
    out, kl = tap(x, *(m.to(weights.dtype) for m in real_moments()), direction)
    return (out.to(weights.dtype) * weights).sum() + 3.0 * kl


def plain_tap(x: Tensor, real_mean: Tensor, real_var: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    return x, reference_kl(*channel_moments(x), real_mean, real_var, direction)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_tap_gradient_passes_gradcheck(shape: tuple[int, ...], direction: Direction) -> None:
    x, weights = values(shape).requires_grad_(), values((*shape,)) / 9
    assert torch.autograd.gradcheck(lambda x: tap_loss(x, weights, direction), (x,))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_tap_equals_autograd_in_float32(
    shape: tuple[int, ...], direction: Direction, memory_format: torch.memory_format
) -> None:
    start, weights = values(shape, torch.float32), values(shape, torch.float32) / 9
    if len(shape) == 4:
        start = start.contiguous(memory_format=memory_format)
    results = []
    for tap in (tap_kl, plain_tap):
        x = start.clone().requires_grad_()
        loss = tap_loss(x, weights, direction, tap)
        loss.backward()
        results.append((loss.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_tap_passes_its_values_through_unchanged() -> None:
    x = values((3, 5, 4, 6), torch.float32)
    out, _ = tap_kl(x, *real_moments(torch.float32))
    assert torch.equal(out, x)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_tap_in_bfloat16_is_close(direction: Direction) -> None:
    shape = (32, 5, 6, 6)
    weights = torch.zeros(shape)
    grads = []
    for dtype in (torch.bfloat16, torch.float64):
        x = values(shape, torch.float32).bfloat16().to(dtype).requires_grad_()
        tap_loss(x, weights.to(torch.promote_types(dtype, torch.float32)), direction).backward()
        assert x.grad is not None and x.grad.dtype == dtype
        grads.append(x.grad.double())
    assert (grads[0] - grads[1]).norm() < 0.02 * grads[1].norm()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_compiled_tap_equals_the_eager_one(direction: Direction) -> None:
    compiled = torch.compile(tap_kl, backend="eager")
    x = values((3, 5, 4, 6))
    results = []
    for tap in (compiled, tap_kl):
        leaf = x.clone().requires_grad_()
        loss = tap_loss(leaf, torch.ones_like(x), direction, tap)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)


def test_a_dead_channel_gives_a_finite_kl_compiled_or_not() -> None:
    x = torch.full((64, 5, 3, 3), 1.1)  # in float32, E[x^2] - mean^2 comes out below zero
    for tap in (tap_kl, torch.compile(tap_kl, backend="eager")):
        assert torch.isfinite(tap(x, *real_moments(torch.float32))[1])
