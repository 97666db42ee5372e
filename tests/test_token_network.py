"""The frozen copy of an image tower: its features, its statistics and the loss of each layer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.inversion.features.statistics import Axis, Moments
from pmi_cl.inversion.networks.attention import FrozenAttention
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.starts import matched_noise
from pmi_cl.inversion.ways.pmi import LayerLoss, PmiConfig
from pmi_cl.seeding import seeded
from tests.support.slow_references import reference_kl
from tests.support.small_clips import small_clip
from tests.support.token_networks import kls_by_hooks, maps, moments, with_everything


@pytest.mark.parametrize("axis", ["channel", "token"])
@pytest.mark.parametrize("whole", [True, False])
def test_features_statistics_and_gradients_are_those_of_hooks(axis: Axis, whole: bool) -> None:
    network, stored = small_clip(), moments(axis)
    copied = TokenNetwork(network.pieces()[1:], stored)
    x, expected = maps(6, 1).requires_grad_(), maps(6, 1).requires_grad_()
    features, kls = copied(x) if whole else copied.run(x)
    reference, by_hooks = kls_by_hooks(network, expected, stored, whole)
    torch.testing.assert_close(features, reference, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.stack(kls), torch.stack(by_hooks), rtol=1e-4, atol=1e-6)
    (features.square().mean() + torch.stack(kls).sum()).backward()
    (reference.square().mean() + torch.stack(by_hooks).sum()).backward()
    assert x.grad is not None and expected.grad is not None
    assert (x.grad - expected.grad).norm() < 1e-4 * expected.grad.norm()


def test_prompts_prefixes_adapters_and_contexts_work_in_the_copy() -> None:
    network, contexts = with_everything(), torch.randn(5, 32, generator=seeded(3))
    copied = TokenNetwork(network.pieces()[1:])
    with torch.no_grad():
        torch.testing.assert_close(
            copied(maps(5), contexts)[0], network.features_from(maps(5), 1, contexts), rtol=1e-4, atol=1e-5
        )
        assert not torch.allclose(copied(maps(5), contexts.flip(0))[0], copied(maps(5), contexts)[0])


def test_the_copy_shares_nothing_and_trains_nothing() -> None:
    network = small_clip()
    copied = TokenNetwork(network.pieces()[1:], moments()).train()
    before = copied(maps(3))[0]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    x = maps(3).requires_grad_()
    after, kls = copied(x)
    assert torch.equal(before, after) and not copied.training
    (after.sum() + torch.stack(kls).sum()).backward()
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in copied.parameters())
    assert isinstance(network.blocks[0].block.attn, nn.MultiheadAttention)  # the original is as it was
    assert sum(isinstance(module, FrozenAttention) for module in copied.modules()) == 2


def test_bfloat16_keeps_statistics_and_tokens_in_float32() -> None:
    network = small_clip()
    low, high = (
        TokenNetwork(network.pieces()[1:], moments(), dtype=dtype) for dtype in (torch.bfloat16, torch.float32)
    )
    x = maps(6, 1)
    (features, kls), (exact, exact_kls) = low(x), high(x)
    assert {value.dtype for value in (features, *kls)} == {torch.float32}
    assert all(tap.mean.dtype == torch.float32 for tap in low.taps.values())
    assert (
        low.pieces[1].block.mlp.c_fc.weight.dtype == torch.bfloat16
        and low.pieces[1].block.ln_1.weight.dtype == torch.float32
    )
    torch.testing.assert_close(features, exact, rtol=0.05, atol=0.05)
    torch.testing.assert_close(torch.stack(kls), torch.stack(exact_kls), rtol=0.02, atol=2e-3)


def test_bfloat16_reads_the_variance_of_channels_far_from_zero() -> None:
    """A residual stream has channels with a mean of many standard deviations.

    Squares in bfloat16 would lose their variance.
    """
    stored = [
        replace(
            moments()[1], input=replace(moments()[1].input, mean=torch.full((32,), 30.0), var=torch.full((32,), 0.01))
        )
    ]  # type: ignore[type-var]
    copied = TokenNetwork([small_clip().blocks[0]], stored, dtype=torch.bfloat16)
    _, (kl,) = copied(30 + 0.1 * torch.randn(64, 17, 32, generator=seeded(0)))
    assert float(kl) < 0.01


def test_unit_features_are_those_of_the_whole_alone() -> None:
    network = small_clip()
    plain, unit = (TokenNetwork(network.pieces()[1:], unit_features=unit) for unit in (False, True))
    torch.testing.assert_close(unit(maps(4))[0], F.normalize(plain(maps(4))[0], dim=1))
    below = plain.run(maps(4), 0, 3)[0]
    assert torch.equal(unit.run(maps(4), 0, 3)[0], below)
    torch.testing.assert_close(unit.run(below, 3, 4)[0], unit(maps(4))[0])


def test_without_statistics_there_is_nothing_to_compare() -> None:
    copied = TokenNetwork(small_clip().pieces()[1:])
    assert copied(maps(3))[1] == [] and copied.run(maps(3))[1] == [] and not copied.input_prior
    with pytest.raises(ValueError, match="3 moments for 4 pieces"):
        TokenNetwork(small_clip().pieces()[1:], moments()[1:])


def test_a_dead_channel_does_not_rule() -> None:
    dead = [
        replace(piece, input=replace(piece.input, var=torch.cat([torch.zeros(1), piece.input.var[1:]])))
        for piece in moments()
        if piece.input
    ]
    _, kls = TokenNetwork(small_clip().pieces()[1:], dead)(maps(6))
    assert len(kls) == 2 and all(float(kl) < 100 for kl in kls)


def test_compiles_to_the_same() -> None:
    copied = TokenNetwork(small_clip().pieces()[1:], moments())
    compiled = torch.compile(copied.forward, backend="aot_eager")
    x, other = maps(4).requires_grad_(), maps(4).requires_grad_()
    for value, through in ((x, compiled), (other, copied.forward)):
        features, kls = through(value)
        (features.square().mean() + torch.stack(kls).sum()).backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-6)


# The loss of a layer.


@pytest.mark.parametrize("axis", ["channel", "token"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_the_loss_of_a_layer_is_equation_26(layer: int, axis: Axis) -> None:
    """The lowest layer's input, a map, has a prior too."""
    network, config = small_clip(), PmiConfig(alpha=0.3, beta=0.7)
    stored, piece = moments(axis), small_clip().pieces()[layer + 1]
    copied = TokenNetwork(network.pieces()[1:], stored)
    with torch.no_grad():
        given = copied.run(maps(6, 1), 0, layer)[0] if layer else maps(6, 1)
        target = piece(given) + 0.1
    prior = stored[layer].input
    assert prior is not None
    loss = LayerLoss(copied, layer, target, prior, config)(given, 0)
    inside: list[Tensor] = []

    def kl(value: Tensor, known: Moments) -> Tensor:
        axes = (0, 2, 3) if value.dim() == 4 else (0, 1) if axis == "channel" else (0, 2)
        var, mean = torch.var_mean(value, dim=axes, unbiased=False)
        return reference_kl(mean, var, known.mean, known.var, "synthetic_to_real")

    def tap(name: str, value: Tensor) -> Tensor:
        inside.append(kl(value, stored[layer].inner[name]))
        return value

    expected = 0.7 * (piece(given, None, tap) - target).square().mean() + 0.3 * (kl(given, prior) + sum(inside))
    assert len(inside) == (2 if layer in (1, 2) else 0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_inverting_one_piece_lowers_its_error() -> None:
    network = small_clip()
    copied = TokenNetwork(network.pieces()[1:], moments())
    for layer in range(4):
        with torch.no_grad():
            given = copied.run(maps(8, 1), 0, layer)[0] if layer else maps(8, 1)
            target = copied.run(given, layer, layer + 1)[0]
        prior = moments()[layer].input
        assert prior is not None
        x = matched_noise(given.shape, prior, seeded(layer)).requires_grad_()
        loss = LayerLoss(copied, layer, target, prior, PmiConfig(alpha=2e-3))
        first = loss.terms(x)[0].item()
        optimizer = torch.optim.Adam([x], lr=0.1)
        for step in range(60):
            optimizer.zero_grad()
            loss(x, step).backward()
            optimizer.step()
        assert loss.terms(x)[0].item() < 0.1 * first
