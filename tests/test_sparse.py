"""Test sparse model inversion.

The right patches are dropped, the rest alone is computed and moved, the cost is counted, and it
resumes.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.resnet_cifar import resnet20
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.engine.problem import Problem, frozen_network
from pmi_cl.inversion.networks.token_network import TokenNetwork, select_patches
from pmi_cl.inversion.networks.token_statistics import measure_token_moments
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch
from pmi_cl.inversion.transforms import Transforms
from pmi_cl.inversion.ways.sparse import PruningConfig, patches_left
from pmi_cl.seeding import seeded
from tests.support.small_clips import small_clip
from tests.support.token_networks import images, maps, moments, with_everything

SHAPE = (32, 4, 4)
SMI = InversionConfig(
    start="stats",
    steps=14,
    lr=0.1,
    batch=3,
    terms=(FeatureMatch(), StatisticsMatch(2e-3), DirectionalTV(5e-3)),
    pruning=PruningConfig(at=(2, 5, 8, 11)),
)


def inversion(config: InversionConfig = SMI, network: ClipNetwork | None = None, **changes: Any) -> Inversion:
    copied = TokenNetwork((network or small_clip()).pieces()[1:], moments())
    return Inversion(
        Problem(copied, config, image_shape=SHAPE, targets=torch.randn(6, 16, generator=seeded(2)), **changes)
    )


def finished(*given: Any, **changes: Any) -> Inversion:
    whole = inversion(*given, **changes)
    for _ in whole.run():
        pass
    return whole


def test_less_than_a_quarter_of_the_patches_stays() -> None:
    assert patches_left(196, PruningConfig()) == [137, 95, 66, 46]  # 23 %, truncated as in SMI's code
    assert patches_left(16, PruningConfig()) == [11, 7, 4, 2]
    assert patches_left(1, PruningConfig()) == [1, 1, 1, 1]


def weights_by_torch(network: ClipNetwork, x: Tensor) -> Tensor:
    """Return what the class token attends to in the last block, by torch's own module.

    It is (b, n), the mean over heads.
    """
    caught: list[Tensor] = []
    last = network.blocks[-1].block
    handle = last.attn.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        network.features_from(x, 1)
        handle.remove()
        return last.attn(caught[0], caught[0], caught[0], need_weights=True, average_attn_weights=True)[1][:, 0]


@pytest.mark.parametrize("prompts", [0, 3])
def test_attention_of_the_class_token_is_torchs(prompts: int) -> None:
    """Prompts between class token and patches take their share and are not counted among the
    patches.
    """
    network = small_clip()
    if prompts:
        network = with_everything()
        for block in network.blocks:
            block.prefix = None
    found = TokenNetwork(network.pieces()[1:]).class_attention(maps(3))
    assert found.shape == (3, 16)
    torch.testing.assert_close(found, weights_by_torch(network, maps(3))[:, 1 + prompts :], rtol=1e-4, atol=1e-6)


def test_prefixed_keys_take_their_share_of_the_attention() -> None:
    network, contexts = with_everything(), torch.randn(3, 32, generator=seeded(3))
    found = TokenNetwork(network.pieces()[1:]).class_attention(maps(3), contexts)
    seen: list[Tensor] = []

    def tap(name: str, value: Tensor) -> Tensor:
        seen.extend([value] if name == "attn" else [])
        return value

    with torch.no_grad():
        tokens = network.pieces()[1](maps(3))
        tokens = network.pieces()[2](tokens, contexts)
        network.pieces()[3](tokens, contexts, tap)
        attention, prefix = network.blocks[-1].block.attn, network.blocks[-1].prefix
        assert prefix is not None
        query, key, _ = F.linear(seen[0], attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        key, total = torch.cat([prefix(contexts)[0], key], dim=1), torch.zeros(3, 16)
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            scores = torch.einsum("bd,bnd->bn", query[:, 0, part], key[..., part]) / 8**0.5
            total += scores.softmax(1)[:, -16:] / 4
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)


def test_of_patches_takes_the_class_token_and_what_is_kept() -> None:
    tokens = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
    found = select_patches(tokens, torch.tensor([[0, 3], [1, 2]]))
    assert torch.equal(found, torch.stack([tokens[0, [0, 1, 4]], tokens[1, [0, 2, 3]]]))


def test_the_network_on_kept_patches_is_the_tower_on_fewer_tokens() -> None:
    network, kept = small_clip(), torch.tensor([[0, 3, 9, 15], [1, 2, 4, 8]])
    copied = TokenNetwork(network.pieces()[1:], moments())
    with torch.no_grad():
        features, kls = copied(maps(2), None, kept)
        for row in range(2):
            tokens = network.pieces()[1](maps(2)[row : row + 1])[:, [0, *(int(k) + 1 for k in kept[row])]]
            for piece in network.pieces()[2:]:
                tokens = piece(tokens)
            torch.testing.assert_close(features[row : row + 1], tokens, rtol=1e-4, atol=1e-5)
        assert len(kls) == 2
        everything = torch.arange(16).expand(2, -1)
        torch.testing.assert_close(copied(maps(2), None, everything)[0], copied(maps(2))[0])


def least_attended(whole: Inversion, x: Tensor, kept: Tensor | None, left: int) -> list[set[int]]:
    assert isinstance(whole.plan.network, TokenNetwork)
    shares = whole.plan.network.class_attention(x, None, kept)
    numbers = torch.arange(16).expand(len(x), -1) if kept is None else kept
    return [set(numbers[row][shares[row].argsort(descending=True)[:left]].tolist()) for row in range(len(x))]


def test_drops_what_the_class_token_looks_at_least_and_keeps_its_last_values() -> None:
    whole = inversion(replace(SMI, batch=6))
    counts, before, kept = [], None, None
    steps = whole.run()
    for step in range(14):
        expected = None
        if step in (2, 5, 8, 11):
            assert whole.descent is not None
            current = (
                whole.descent.x.detach() if whole.pruning is None else whole.pruning.composed(whole.descent.x.detach())
            )
            before = current.clone()
            expected = least_attended(
                whole, current, kept, patches_left(16, PruningConfig())[(2, 5, 8, 11).index(step)]
            )
        next(steps)
        assert whole.pruning is not None
        kept = whole.pruning.kept
        counts.append(16 if kept is None else kept.shape[1])
        if expected is not None:
            assert kept is not None and before is not None
            assert [set(row.tolist()) for row in kept] == expected
    assert counts == [16] * 2 + [11] * 3 + [7] * 3 + [4] * 3 + [2] * 3
    assert list(steps) == [] and kept is not None and before is not None
    result = whole.images().flatten(2)
    for row in range(6):
        dropped = sorted(set(range(16)) - set(kept[row].tolist()))
        assert torch.equal(result[row][:, dropped], before[row].flatten(1)[:, dropped])
        assert not torch.isclose(result[row][:, kept[row]], before[row].flatten(1)[:, kept[row]]).all(0).any()


def test_steps_are_the_plain_descent_on_the_patches_that_are_left() -> None:
    """Adam is run by hand, on a fixed objective. Dropped patches have no gradient."""
    whole = inversion(replace(SMI, batch=6))
    assert whole.plan.targets is not None and isinstance(whole.plan.network, TokenNetwork)
    losses = [float(progress.loss) for progress in whole.run()]
    again = inversion(replace(SMI, batch=6))
    x = again.plan.first_coordinates(0).clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.1)
    kept, frozen, expected = None, None, []
    for step in range(14):
        shown = x if frozen is None or kept is None else torch.where(mask(kept), x, frozen)
        if step in (2, 5, 8, 11):
            left = patches_left(16, PruningConfig())[(2, 5, 8, 11).index(step)]
            kept = torch.tensor([sorted(row) for row in least_attended(whole, shown.detach(), kept, left)])
            frozen = shown.detach().clone()
            shown = torch.where(mask(kept), x, frozen)
        features, kls = whole.plan.network(shown, None, kept)
        pairs = (
            (shown[..., 1:, :], shown[..., :-1, :]),
            (shown[..., 1:], shown[..., :-1]),
            (shown[..., 1:, 1:], shown[..., :-1, :-1]),
            (shown[..., 1:, :-1], shown[..., :-1, 1:]),
        )
        smooth = torch.stack([(one - other).square().sum((2, 3)).sqrt().mean() for one, other in pairs]).sum()
        loss = F.mse_loss(features, whole.plan.targets) + 2e-3 * torch.stack(kls).sum() + 5e-3 * smooth
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(float(loss.detach()))
    assert losses == pytest.approx(expected, rel=1e-5)


def mask(kept: Tensor) -> Tensor:
    flags = torch.zeros(len(kept), 16, dtype=torch.bool)
    for row, numbers in enumerate(kept.tolist()):
        flags[row, numbers] = True
    return flags.view(-1, 1, 4, 4)


def test_costs_what_it_computes() -> None:
    """Passes over 16, 11, 7, 4 and 2 patches are counted by hand, and the four that decide."""
    copied = TokenNetwork(small_clip().pieces()[1:], moments())

    def count(kept: int | None, deciding: bool = False) -> int:
        numbers = None if kept is None else torch.arange(kept)[None]
        value = maps(1).requires_grad_()
        with FlopCounterMode(display=False) as counter:
            if deciding:
                copied.class_attention(value, None, numbers)
            else:
                copied(value, None, numbers)[0].sum().backward()
        return counter.get_total_flops()

    whole = count(None)
    steps = 2 * whole + 3 * sum(count(left) for left in (11, 7, 4, 2))
    deciding = sum(count(left, True) for left in (None, 11, 7, 4))
    report = finished().report
    assert report.step_equivalents == pytest.approx((steps + deciding) / whole, rel=1e-6)
    assert report.step_equivalents < 0.75 * 14
    assert (report.steps, report.backward_passes, report.forward_passes) == (28, 28, 28 + 8)


def test_works_on_pixels_too() -> None:
    network = small_clip()
    pieces = network.pieces()
    copied = TokenNetwork(
        pieces,
        [replace(m, input=None) if k == 0 else m for k, m in enumerate(measure_token_moments(pieces, [images(9)]))],
    )
    targets = torch.randn(3, 16, generator=seeded(2))
    whole = Inversion(Problem(copied, replace(SMI, start="noise"), image_shape=(3, 16, 16), targets=targets))
    for _ in whole.run():
        pass
    assert whole.images().shape == (3, 3, 16, 16) and bool(torch.isfinite(whole.images()).all())


def test_comes_after_pmi_and_with_contexts() -> None:
    contexts = torch.randn(6, 32, generator=seeded(3))
    whole = finished(replace(SMI, start="pmi"), network=with_everything(), contexts=contexts)
    assert whole.report.losses[-1]["stage"] == "full model" and whole.images().shape == (6, *SHAPE)


@pytest.mark.parametrize("stop", [0, 2, 3, 6, 11, 12, 14, 17, 27])
def test_resumes_bit_for_bit_wherever_it_stops(stop: int) -> None:
    whole = finished()
    first, second = inversion(), inversion()
    steps = first.run()
    for _ in range(stop):
        next(steps)
    file = io.BytesIO()
    torch.save(first.state(), file)
    second.load(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert len(list(second.run())) == 28 - stop
    assert torch.equal(second.images(), whole.images())
    assert second.report.step_equivalents == pytest.approx(whole.report.step_equivalents)
    assert second.report.forward_passes == whole.report.forward_passes


def test_a_descent_that_starts_again_has_all_patches_again() -> None:
    whole = inversion(replace(SMI, batch=6))
    steps = whole.run()
    for _ in range(6):
        next(steps)
    assert whole.descent is not None and whole.pruning is not None and whole.pruning.kept is not None
    whole.descent._begin()
    next(steps)
    assert whole.pruning.kept is None and whole.pruning.done == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transforms": Transforms(roll=1)}, "no roll, no flip"),
        ({"transforms": Transforms(flip=True)}, "no roll, no flip"),
        ({"keep_best": True}, "keep_best"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inversion(replace(SMI, **changes))


def test_networks_without_patches_and_statistics_by_position_are_refused() -> None:
    by_position = TokenNetwork(small_clip().pieces()[1:], moments("token"))
    with pytest.raises(ValueError, match="by channel"):
        Problem(by_position, SMI, image_shape=SHAPE, targets=torch.zeros(2, 16))
    with pytest.raises(ValueError, match="TokenNetwork"):
        config = replace(SMI, start="noise")
        frozen = frozen_network(resnet20().pieces(), None, config)
        Problem(frozen, config, image_shape=(3, 8, 8), targets=torch.zeros(2, 64))
