"""Inversion of an image tower: its stages, starts, contexts and grids, and going on bit for bit."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.networks.token_statistics import TokenMoments
from pmi_cl.inversion.objectives import FeatureMatch, StatisticsMatch
from pmi_cl.inversion.starts import matched_noise
from pmi_cl.inversion.ways.pmi import PmiConfig, seen_at
from pmi_cl.seeding import seeded
from tests.support.small_clips import small_clip
from tests.support.token_networks import PAPER, SHAPE, kls_by_hooks, moments, with_everything


def inversion(
    config: InversionConfig = PAPER, network: ClipNetwork | None = None, n: int = 6, **changes: Any
) -> Inversion:
    copied = TokenNetwork((network or small_clip()).pieces()[1:], moments(), dtype=config.precision)
    targets = torch.randn(n, 16, generator=seeded(2))
    return Inversion(Problem(copied, config, image_shape=SHAPE, targets=targets, **changes))


def finished(*given: Any, **changes: Any) -> Inversion:
    whole = inversion(*given, **changes)
    for _ in whole.run():
        pass
    return whole


def test_pmi_goes_from_the_projection_to_the_map_and_then_through_all() -> None:
    whole = finished(replace(PAPER, batch=6))
    assert [entry["stage"] for entry in whole.report.losses] == [
        "layer 3",
        "layer 2",
        "layer 1",
        "layer 0",
        "full model",
    ]
    assert whole.images().shape == (6, *SHAPE)
    assert whole.report.step_equivalents == pytest.approx(4 + 6, rel=1e-3)
    assert whole.plan.costs[1] == pytest.approx(whole.plan.costs[2]) and whole.plan.costs[1] > 0.4


def test_full_model_inversion_is_the_plain_loop_with_hooks() -> None:
    network, steps = small_clip(), 8
    config = replace(PAPER, start="noise", steps=steps, batch=6)
    whole = inversion(config)
    losses = [float(progress.loss) for progress in whole.run()]
    assert whole.plan.targets is not None
    x = torch.randn((6, *SHAPE), generator=seeded(0, "start", 0, -1)).requires_grad_()
    optimizer, expected = torch.optim.Adam([x], lr=0.1), []
    for _ in range(steps):
        optimizer.zero_grad()
        features, kls = kls_by_hooks(network, x, moments(), True)
        pairs = (
            (x[..., 1:, :], x[..., :-1, :]),
            (x[..., 1:], x[..., :-1]),
            (x[..., 1:, 1:], x[..., :-1, :-1]),
            (x[..., 1:, :-1], x[..., :-1, 1:]),
        )
        smooth = sum((one - other).square().sum((2, 3)).sqrt().mean() for one, other in pairs)
        loss = (features - whole.plan.targets).square().mean() + 2e-3 * torch.stack(kls).sum() + 5e-3 * smooth
        loss.backward()
        optimizer.step()
        expected.append(float(loss.detach()))
    assert losses == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(whole.images(), x.detach(), rtol=1e-3, atol=1e-3)


def test_every_layer_starts_at_its_stored_moments_the_lowest_too() -> None:
    whole = inversion(replace(PAPER, batch=6))
    seen: dict[str, Tensor] = {}
    for progress in whole.run():
        assert whole.descent is not None
        seen.setdefault(progress.stage, whole.descent.start)
    for layer in range(4):
        prior = moments()[layer].input
        assert prior is not None
        expected = matched_noise(tuple(seen[f"layer {layer}"].shape), prior, seeded(0, "start", 0, layer))
        torch.testing.assert_close(seen[f"layer {layer}"], expected)


def test_the_lowest_piece_gives_its_last_iterate_and_the_others_their_best() -> None:
    keeps = {}
    whole = inversion(replace(PAPER, batch=6))
    for progress in whole.run():
        assert whole.descent is not None
        keeps[progress.stage] = whole.descent.keep_best
    assert keeps == {"layer 3": True, "layer 2": True, "layer 1": True, "layer 0": False, "full model": False}


def test_matched_noise_has_the_moments_of_each_channel_or_position() -> None:
    for axis, axes in (("channel", (0, 1)), ("token", (0, 2))):
        known = moments(axis)[1].input  # type: ignore[arg-type]
        assert known is not None
        var, mean = torch.var_mean(matched_noise((4000, 17, 32), known, seeded(0)), dim=axes, unbiased=False)
        torch.testing.assert_close(mean, known.mean, rtol=0, atol=0.02)
        torch.testing.assert_close(var, known.var, rtol=0.03, atol=0)


def test_contexts_go_with_their_samples_into_every_stage() -> None:
    """Each sample has a batch of its own.

    The map of the third depends on the target and the context of the third alone.
    """
    network, contexts = with_everything(), torch.randn(6, 32, generator=seeded(3))
    config = replace(PAPER, batch=3)
    changed = contexts.clone()
    changed[4] += 1
    one, other = (finished(config, network=network, contexts=c).images() for c in (contexts, changed))
    assert torch.equal(one[:3], other[:3]) and not torch.allclose(one[4], other[4])
    with pytest.raises(ValueError, match="6 targets but 5 contexts"):
        inversion(config, network=network, contexts=contexts[:5])


def test_another_precision_or_direction_than_the_network_s_is_refused() -> None:
    copied = TokenNetwork(small_clip().pieces()[1:], moments())
    for change in ({"precision": torch.bfloat16}, {"direction": "real_to_synthetic"}):
        with pytest.raises(ValueError, match=f"configuration's {next(iter(change))} is .*: give both the same"):
            Problem(copied, replace(PAPER, **change), image_shape=SHAPE, targets=torch.zeros(2, 16))


@pytest.mark.parametrize("start", ["stats", "stem"])
def test_starts_that_need_statistics_say_so(start: Any) -> None:
    copied = TokenNetwork(small_clip().pieces()[1:])
    with pytest.raises(ValueError, match=f"start '{start}' needs a network with statistics"):
        Inversion(Problem(copied, replace(PAPER, start=start), image_shape=SHAPE, targets=torch.zeros(2, 16)))


@pytest.mark.parametrize("start", ["noise", "stats", "lowfreq", "stem", "pmi"])
def test_the_loss_falls_from_every_start(start: Any) -> None:
    whole = finished(replace(PAPER, start=start, steps=40, terms=(FeatureMatch(), StatisticsMatch(2e-3))))
    losses = whole.report.losses[-1]["losses"]
    assert losses[-1] < 0.8 * losses[0]


def test_pixels_can_be_inverted_too_and_have_no_prior() -> None:
    network = small_clip()
    copied = TokenNetwork(network.pieces(), [TokenMoments(None), *moments()])
    targets = torch.randn(4, 16, generator=seeded(2))
    whole = Inversion(Problem(copied, replace(PAPER, steps=30), image_shape=(3, 16, 16), targets=targets))
    losses = [float(progress.loss) for progress in whole.run()]
    assert whole.images().shape == (4, 3, 16, 16) and losses[-1] < losses[-30]


def test_an_image_that_is_not_finite_names_the_layer() -> None:
    from pmi_cl.inversion.engine.descent import NonFiniteInversion

    with pytest.raises(NonFiniteInversion, match="full model"):
        finished(replace(PAPER, start="noise", lr=1e30))


# Coarse to fine.


def test_a_coarse_grid_shows_cells_and_the_own_grid_shows_all() -> None:
    value = torch.randn(2, 3, 4, 4, generator=seeded(0))
    assert seen_at(value, None) is value and seen_at(value, 4) is value
    coarse = seen_at(value, 2)
    assert coarse.shape == value.shape
    # A corner lies outside the cells' centres.
    torch.testing.assert_close(coarse[..., 0, 0], value[..., :2, :2].mean((2, 3)))


def test_grids_take_equal_parts_of_the_lowest_layers_steps() -> None:
    config = PmiConfig(steps=200, lowest_steps=1200, grids=(2, 4, 8, 14))
    assert [config.grid_at(0, step) for step in (0, 299, 300, 600, 900, 1199)] == [2, 2, 4, 8, 14, 14]
    assert config.grid_at(1, 0) is None and config.steps_of(0) == 1200 and config.steps_of(3) == 200
    assert PmiConfig().grid_at(0, 5) is None and PmiConfig(steps=7).steps_of(0) == 7


def test_coarse_to_fine_moves_cells_as_one_until_its_last_grid() -> None:
    """It starts as coarse, so that nothing hides which a finer grid would bring to light."""
    config = replace(PAPER, batch=6, pmi=replace(PAPER.pmi, lowest_steps=8, grids=(2, 4)))
    whole, uniform = inversion(config), []
    for progress in whole.run():
        if progress.stage == "layer 0":
            assert whole.descent is not None
            cells = whole.descent.x.detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
            uniform.append(float(cells.var(-1).max()) < 1e-6)
    assert uniform == [True] * 4 + [False] * 4
    assert [len(entry["losses"]) for entry in whole.report.losses] == [4, 4, 4, 8, 6]


# Resumption.


@pytest.mark.parametrize("stop", [0, 1, 4, 13, 16, 18, 22, 30, 44])
def test_resumes_bit_for_bit_wherever_it_stops(stop: int) -> None:
    network, contexts = with_everything(), torch.randn(6, 32, generator=seeded(3))
    config = replace(PAPER, precision=torch.bfloat16)
    whole = finished(config, network=network, contexts=contexts)
    first, second = (inversion(config, network=network, contexts=contexts) for _ in range(2))
    steps = first.run()
    for _ in range(stop):
        next(steps)
    file = io.BytesIO()
    torch.save(first.state(), file)
    second.load(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert len(list(second.run())) == whole.total_steps - stop
    assert torch.equal(second.images(), whole.images())
    assert second.report.step_equivalents == pytest.approx(whole.report.step_equivalents)
