"""Test per-layer inversion: Eq. 26 with hooks, the boost, the priors, and its use on a trained
network.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pmi_cl.backbones.resnet_cifar import ResNetCifar
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.features.statistics import Direction, Moments
from pmi_cl.inversion.networks.frozen import FrozenNetwork, bn_affine_moments
from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch
from pmi_cl.inversion.ways.pmi import Boost, LayerLoss, PmiConfig
from pmi_cl.seeding import seeded
from tests.support.slow_references import channel_moments, hooked_kls, reference_kl
from tests.support.small_networks import trained_on_digits, two_blocks

PRIOR = Moments(torch.linspace(-0.5, 0.5, 16), torch.linspace(0.3, 2.0, 16), 1)


def layer_input(layer: int) -> Tensor:
    channels = 3 if layer == 0 else 16
    return torch.randn(12, channels, 8, 8, generator=seeded(0, layer))


def frozen(network: ResNetCifar, direction: Direction = "synthetic_to_real") -> FrozenNetwork:
    return FrozenNetwork(network.pieces(), network.head, direction=direction)


def a_target(network: FrozenNetwork, layer: int) -> Tensor:
    with torch.no_grad():
        output, _ = network.run(layer_input(layer) + 1.0, layer, layer + 1)
    return output


def terms_of_equation_26(
    network: ResNetCifar, layer: int, value: Tensor, target: Tensor, direction: str = "synthetic_to_real"
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the MSE, the KLs of the BatchNorm inputs inside the layer, and the KL of its input.

    The last is missing where the input is an image.
    """
    output, inside = hooked_kls(network.pieces()[layer], value, direction)
    prior = reference_kl(*channel_moments(value), PRIOR.mean, PRIOR.var, direction) if layer > 0 else torch.zeros(())
    return (output - target).pow(2).mean(), torch.stack(inside).sum(), prior


def equation_26(
    network: ResNetCifar, layer: int, value: Tensor, target: Tensor, config: PmiConfig, direction: str
) -> Tensor:
    """Return beta MSE + alpha (KL of the layer's input + KLs of the BatchNorm inputs inside)."""
    error, inside, prior = terms_of_equation_26(network, layer, value, target, direction)
    return config.beta * error + config.alpha * (inside + prior)


@pytest.mark.parametrize("direction", ["synthetic_to_real", "real_to_synthetic"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_loss_of_a_layer_is_equation_26(layer: int, direction: Direction) -> None:
    network, config = two_blocks(), PmiConfig(alpha=1.6, beta=0.7)
    copied = frozen(network, direction)
    target = a_target(copied, layer)
    value, expected = layer_input(layer).requires_grad_(), layer_input(layer).requires_grad_()
    loss = LayerLoss(copied, layer, target, PRIOR if layer else None, config)(value, 0)
    reference = equation_26(network, layer, expected, target, config, direction)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(value.grad, expected.grad, rtol=1e-3, atol=1e-6)


def test_an_image_has_no_statistics_even_where_they_are_given() -> None:
    network = frozen(two_blocks())
    image_moments = Moments(torch.zeros(3), torch.ones(3), 1)
    with_them, without = (LayerLoss(network, 0, a_target(network, 0), m, PmiConfig()) for m in (image_moments, None))
    assert torch.equal(with_them.terms(layer_input(0)), without.terms(layer_input(0)))


def test_a_dead_channel_does_not_rule_the_prior() -> None:
    network = frozen(two_blocks())
    dead = replace(PRIOR, var=torch.cat([torch.zeros(1), PRIOR.var[1:]]))
    terms = LayerLoss(network, 1, a_target(network, 1), dead, PmiConfig()).terms(layer_input(1))
    assert bool(torch.isfinite(terms).all()) and float(terms[2]) < 100


# The released code's boost.


def test_boost_doubles_what_exceeds_its_first_value_up_to_its_limit() -> None:
    boost = Boost((10.0, 10.0, 5.0))
    weights = [
        boost(torch.tensor(terms)).tolist()
        for terms in ([1.0, 1.0, 1.0], [2.0, 0.5, 2.0], [2.0, 1.5, 2.0], [2.0, 0.5, 1.5])
    ]
    assert weights == [[1, 1, 1], [2, 1, 2], [4, 2, 4], [8, 2, 5]]
    assert boost(torch.tensor([9.0, 1.0, 9.0])).tolist() == [10, 2, 5]


def test_a_boosted_loss_reports_the_plain_loss_and_gives_the_boosted_gradient() -> None:
    """The weight of a term above its first value doubles at every step, up to 10 times.

    That of the prior of the input doubles up to 5 times.
    """
    network = two_blocks()
    copied = frozen(network)
    target, far = a_target(copied, 1), layer_input(1) * 3
    plain, boosted = (
        LayerLoss(copied, 1, target, PRIOR, PmiConfig(alpha=1.6, beta=0.7, boost=boost)) for boost in (False, True)
    )
    boosted(layer_input(1), 0)
    for step, (error, inside, prior) in enumerate([(2, 2, 2), (4, 4, 4), (8, 8, 5), (10, 10, 5), (10, 10, 5)], start=1):
        value, reference = far.clone().requires_grad_(), far.clone().requires_grad_()
        found = boosted(value, step)  # every term of `far` exceeds its first value
        assert found.item() == pytest.approx(plain(far, step).item(), rel=1e-6)
        found.backward()
        terms = terms_of_equation_26(network, 1, reference, target)
        (0.7 * error * terms[0] + 1.6 * inside * terms[1] + 1.6 * prior * terms[2]).backward()
        torch.testing.assert_close(value.grad, reference.grad, rtol=1e-3, atol=1e-5)


def test_a_descent_that_starts_again_starts_with_plain_weights() -> None:
    network = frozen(two_blocks())
    loss = LayerLoss(network, 1, a_target(network, 1), PRIOR, PmiConfig(boost=True))
    for step, scale in enumerate((1, 3, 3)):
        loss(layer_input(1) * scale, step)
    assert loss.boost is not None and loss.boost.weights is not None and loss.boost.weights.max() == 4
    loss(layer_input(1), 0)
    assert loss.boost.weights is not None and loss.boost.weights.max() == 1


# The released code's prior.


def test_bn_affine_moments_are_beta_and_gamma_squared_of_the_last_batchnorm() -> None:
    block = two_blocks().blocks[0]
    norm = block.bn2
    assert isinstance(norm, nn.BatchNorm2d)
    moments = bn_affine_moments(block)
    assert moments is not None and torch.equal(moments.mean, norm.bias)
    torch.testing.assert_close(moments.var, norm.weight.detach() ** 2)
    assert bn_affine_moments(nn.Conv2d(3, 3, 1)) is None


# On a trained network.


def pmi_on_digits(config: PmiConfig, start: Literal["pmi", "noise"] = "pmi", n: int = 60) -> Inversion:
    trained = trained_on_digits()
    labels = torch.arange(n) % 5
    settings = InversionConfig(
        start=start, steps=1, pmi=config, terms=(FeatureMatch(), StatisticsMatch(0.1))
    )  # the error counts: at 1.6 the statistics of this small network decide
    problem = Problem(
        frozen_network(trained.network.pieces(), trained.network.head, settings, trained.moments),
        settings,
        image_shape=(3, 8, 8),
        targets=trained.gaussians.sample(labels, seeded(0)),
        labels=labels,
    )
    return Inversion(problem)


def first_full_loss(inversion: Inversion) -> float:
    return next(float(progress.loss) for progress in inversion.run() if progress.stage == "full model")


@pytest.mark.parametrize("config", [PmiConfig(steps=50), PmiConfig(steps=30, lr=0.1, boost=True)])
def test_pmi_lowers_the_error_of_every_layer_and_starts_the_full_stage_below_noise(config: PmiConfig) -> None:
    inversion = pmi_on_digits(config)
    errors, full_losses = {}, []
    for progress in inversion.run():
        descent, layer = inversion.descent, inversion.stages[inversion.stage_number].layer
        if layer is None:
            full_losses.append(float(progress.loss))
        elif descent is not None and descent.step == descent.steps:
            target = inversion.carry if inversion.carry is not None else inversion.plan.targets
            assert target is not None
            with torch.no_grad():
                outputs = [
                    inversion.plan.network.run(value, layer, layer + 1)[0]
                    for value in (descent.start, descent.result())
                ]
            errors[progress.stage] = [float((output - target).pow(2).mean()) for output in outputs]
    assert list(errors) == [f"layer {layer}" for layer in range(9, -1, -1)]
    for stage, (before, after) in errors.items():
        assert after < 0.8 * before, stage
    assert full_losses[0] < 0.9 * first_full_loss(pmi_on_digits(config, start="noise"))
