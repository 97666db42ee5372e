"""Inversion of vision transformers: statistics and losses against hooks on open_clip's own modules, descents against plain loops."""

from __future__ import annotations

import functools
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.adapters import MixtureOfAdapters
from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.prompts import DeepPrompt, PromptPool
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.features.statistics import Axis, Moments
from pmi_cl.inversion.features.token_statistics import TokenMoments, measure_token_moments, pool_token_moments
from pmi_cl.inversion.networks.attention import FrozenAttention
from pmi_cl.inversion.networks.token_network import TokenNetwork
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch
from pmi_cl.inversion.starts import matched_noise
from pmi_cl.inversion.ways.pmi import LayerLoss, PmiConfig, seen_at
from pmi_cl.seeding import seeded
from tests.support.slow_references import reference_kl
from tests.support.small_clips import small_clip

SHAPE = (32, 4, 4)  # of the map of the patch convolution
PAPER = InversionConfig(
    start="pmi",
    steps=6,
    lr=0.1,
    batch=4,
    terms=(FeatureMatch(), StatisticsMatch(2e-3), DirectionalTV(5e-3)),
    pmi=PmiConfig(steps=4, lr=0.1, alpha=2e-3, last_at_lowest=True),
)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=seeded(seed, "images"))


def maps(count: int, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return small_clip().pieces()[0](images(count, seed))


@functools.cache
def moments(axis: Axis = "channel") -> list[TokenMoments]:
    """Of pieces 1 and up."""
    return measure_token_moments(small_clip().pieces(), images(24).split(10), axis)[1:]


def with_everything() -> ClipNetwork:
    """A CLIP whose blocks have a prompt, a prefix and an adapter that all do something."""
    network = small_clip()
    for number, block in enumerate(network.blocks):
        block.prompt = DeepPrompt(3, 32, 4, seeded(number))
        pool = PromptPool(4, 32, 2)
        pool.grow(seeded(number, "pool"))
        block.prefix, block.adapter = pool, MixtureOfAdapters(32, 2, 2, 8)
        with torch.no_grad():
            for adapter in block.adapter.parameters():
                adapter.copy_(0.3 * torch.randn(adapter.shape, generator=seeded(number, "adapter", *adapter.shape)))
    return network.eval()


def kls_by_hooks(
    network: ClipNetwork, x: Tensor, stored: list[TokenMoments], whole: bool
) -> tuple[Tensor, list[Tensor]]:
    """What open_clip's own modules get, caught by hooks: blocks' inputs of the whole, inputs of attention and MLP elsewhere."""
    kls: list[Tensor] = []

    def compare(moments: Moments) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            axes = (0, 1) if moments.axis == "channel" else (0, 2)
            var, mean = torch.var_mean(inputs[0], dim=axes, unbiased=False)
            kls.append(reference_kl(mean, var, moments.mean.to(mean), moments.var.to(var), "synthetic_to_real"))

        return hook

    handles = []
    for number, block in enumerate(network.blocks):
        known = stored[number + 1]
        assert known.input is not None
        if whole:
            handles.append(block.block.register_forward_pre_hook(compare(known.input)))
        else:
            handles.append(block.block.attn.register_forward_pre_hook(compare(known.inner["attn"])))
            handles.append(block.block.mlp.register_forward_pre_hook(compare(known.inner["mlp"])))
    try:
        return network.features_from(x, 1), kls
    finally:
        for handle in handles:
            handle.remove()


# --- statistics ---------------------------------------------------------------------------------------------------------------


def values_by_hooks(network: ClipNetwork, x: Tensor) -> dict[str, np.ndarray]:
    seen: dict[str, np.ndarray] = {}
    with torch.no_grad():
        seen["map"] = network.pieces()[0](x).double().numpy()
        handles = [
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.update({name: inputs[0].double().numpy()})
            )
            for number, block in enumerate(network.blocks)
            for name, module in (
                (f"{number}", block.block),
                (f"{number} attn", block.block.attn),
                (f"{number} mlp", block.block.mlp),
            )
        ]
        handles.append(
            network.pieces()[-1].register_forward_pre_hook(
                lambda _, inputs: seen.update(top=inputs[0].double().numpy())
            )
        )
        network.features(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_moments_are_those_of_what_open_clips_modules_get(axis: Axis) -> None:
    """Over uneven batches as over all at once; the map's are by channel always (docs/provenance.md)."""
    network, x = small_clip(), images(24)
    found = measure_token_moments(network.pieces()[1:], (network.pieces()[0](part) for part in x.split(10)), axis)
    seen = values_by_hooks(network, x)
    own = {"map": found[0].input, "0": found[1].input, "1": found[2].input, "top": found[3].input}
    inner = {f"{k} {name}": found[k + 1].inner[name] for k in (0, 1) for name in ("attn", "mlp")}
    assert found[0].inner == found[3].inner == {}
    for name, known in {**own, **inner}.items():
        axes = (0, 2, 3) if name == "map" else (0, 1) if axis == "channel" else (0, 2)
        assert known is not None and known.axis == ("channel" if name == "map" else axis)
        assert known.count == seen[name].size // known.mean.numel()
        np.testing.assert_allclose(known.mean.numpy(), seen[name].mean(axes), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(known.var.numpy(), seen[name].var(axes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", ["channel", "token"])
def test_moments_of_tasks_pool_to_those_of_all_data(axis: Axis) -> None:
    pieces, x = small_clip().pieces(), images(24)
    parts = [measure_token_moments(pieces, [part], axis) for part in (x[:5], x[5:9], x[9:])]
    for pooled, whole in zip(pool_token_moments(parts), measure_token_moments(pieces, [x], axis), strict=True):
        pairs = [(pooled.input, whole.input), *((pooled.inner[name], whole.inner[name]) for name in whole.inner)]
        for one, other in pairs:
            assert one is not None and other is not None and (one.count, one.axis) == (other.count, other.axis)
            torch.testing.assert_close(one.mean, other.mean, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(one.var, other.var, rtol=1e-5, atol=1e-6)


def test_moments_of_different_axes_or_networks_do_not_pool() -> None:
    with pytest.raises(ValueError, match="axes"):
        pool_token_moments([moments("channel"), moments("token")])
    with pytest.raises(ValueError, match="different networks"):
        pool_token_moments([moments(), [*moments()[1:], moments()[0]]])


def test_measuring_leaves_modes_alone_and_takes_contexts() -> None:
    network, x = with_everything().train(), images(6)
    contexts = torch.randn(6, 32, generator=seeded(3))
    one, other = (measure_token_moments(network.pieces(), [(x, c)]) for c in (contexts, contexts.flip(0)))
    assert all(part.training for part in network.modules())
    assert not torch.equal(one[-1].input.mean, other[-1].input.mean)  # type: ignore[union-attr]


def test_moments_go_through_a_file() -> None:
    file = io.BytesIO()
    torch.save([piece.state() for piece in moments("token")], file)
    again = [TokenMoments.from_state(state) for state in torch.load(io.BytesIO(file.getvalue()), weights_only=True)]
    for one, other in zip(again, moments("token"), strict=True):
        assert one.input is not None and other.input is not None and one.input.axis == other.input.axis
        assert torch.equal(one.input.mean, other.input.mean) and list(one.inner) == list(other.inner)


# --- the frozen copy ----------------------------------------------------------------------------------------------------------


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
    """A residual stream has channels with a mean of many standard deviations; squares in bfloat16 would lose their variance."""
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


# --- the loss of a layer ------------------------------------------------------------------------------------------------------


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


# --- the engine ---------------------------------------------------------------------------------------------------------------


def inversion(
    config: InversionConfig = PAPER, network: ClipNetwork | None = None, n: int = 6, **changes: Any
) -> Inversion:
    copied = TokenNetwork((network or small_clip()).pieces()[1:], moments(), dtype=config.precision)
    targets = torch.randn(n, 16, generator=seeded(2))
    return Inversion(copied, None, config, image_shape=SHAPE, targets=targets, **changes)


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
    assert whole.problem.costs[1] == pytest.approx(whole.problem.costs[2]) and whole.problem.costs[1] > 0.4


def test_full_model_inversion_is_the_plain_loop_with_hooks() -> None:
    network, steps = small_clip(), 8
    config = replace(PAPER, start="noise", steps=steps, batch=6)
    whole = inversion(config)
    losses = [float(progress.loss) for progress in whole.run()]
    assert whole.problem.targets is not None
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
        loss = (features - whole.problem.targets).square().mean() + 2e-3 * torch.stack(kls).sum() + 5e-3 * smooth
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
    """A batch of its own for each sample: the third's map depends on the third's target and context alone."""
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
            Inversion(copied, None, replace(PAPER, **change), image_shape=SHAPE, targets=torch.zeros(2, 16))


@pytest.mark.parametrize("start", ["stats", "stem"])
def test_starts_that_need_statistics_say_so(start: Any) -> None:
    copied = TokenNetwork(small_clip().pieces()[1:])
    with pytest.raises(ValueError, match=f"start '{start}' needs a network with statistics"):
        Inversion(copied, None, replace(PAPER, start=start), image_shape=SHAPE, targets=torch.zeros(2, 16))


@pytest.mark.parametrize("start", ["noise", "stats", "lowfreq", "stem", "pmi"])
def test_the_loss_falls_from_every_start(start: Any) -> None:
    whole = finished(replace(PAPER, start=start, steps=40, terms=(FeatureMatch(), StatisticsMatch(2e-3))))
    losses = whole.report.losses[-1]["losses"]
    assert losses[-1] < 0.8 * losses[0]


def test_pixels_can_be_inverted_too_and_have_no_prior() -> None:
    network = small_clip()
    copied = TokenNetwork(network.pieces(), [TokenMoments(None), *moments()])
    whole = Inversion(
        copied, None, replace(PAPER, steps=30), image_shape=(3, 16, 16), targets=torch.randn(4, 16, generator=seeded(2))
    )
    losses = [float(progress.loss) for progress in whole.run()]
    assert whole.images().shape == (4, 3, 16, 16) and losses[-1] < losses[-30]


def test_an_image_that_is_not_finite_names_the_layer() -> None:
    from pmi_cl.inversion.engine.descent import NonFiniteInversion

    with pytest.raises(NonFiniteInversion, match="full model"):
        finished(replace(PAPER, start="noise", lr=1e30))


# --- coarse to fine -----------------------------------------------------------------------------------------------------------


def test_a_coarse_grid_shows_cells_and_the_own_grid_shows_all() -> None:
    value = torch.randn(2, 3, 4, 4, generator=seeded(0))
    assert seen_at(value, None) is value and seen_at(value, 4) is value
    coarse = seen_at(value, 2)
    assert coarse.shape == value.shape
    torch.testing.assert_close(
        coarse[..., 0, 0], value[..., :2, :2].mean((2, 3))
    )  # a corner lies outside the cells' centres


def test_grids_take_equal_parts_of_the_lowest_layers_steps() -> None:
    config = PmiConfig(steps=200, lowest_steps=1200, grids=(2, 4, 8, 14))
    assert [config.grid_at(0, step) for step in (0, 299, 300, 600, 900, 1199)] == [2, 2, 4, 8, 14, 14]
    assert config.grid_at(1, 0) is None and config.steps_of(0) == 1200 and config.steps_of(3) == 200
    assert PmiConfig().grid_at(0, 5) is None and PmiConfig(steps=7).steps_of(0) == 7


def test_coarse_to_fine_moves_cells_as_one_until_its_last_grid() -> None:
    """From a start that is as coarse, so that nothing hides which a finer grid would bring to light."""
    config = replace(PAPER, batch=6, pmi=replace(PAPER.pmi, lowest_steps=8, grids=(2, 4)))
    whole, uniform = inversion(config), []
    for progress in whole.run():
        if progress.stage == "layer 0":
            assert whole.descent is not None
            cells = whole.descent.x.detach().unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
            uniform.append(float(cells.var(-1).max()) < 1e-6)
    assert uniform == [True] * 4 + [False] * 4
    assert [len(entry["losses"]) for entry in whole.report.losses] == [4, 4, 4, 8, 6]


# --- resumption ---------------------------------------------------------------------------------------------------------------


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
