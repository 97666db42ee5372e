"""Test moments of what every layer of an image tower gets: measured, pooled over tasks, kept in
files.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import Tensor

from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.inversion.features.statistics import Axis
from pmi_cl.inversion.networks.token_statistics import TokenMoments, measure_token_moments, pool_token_moments
from pmi_cl.seeding import seeded
from tests.support.small_clips import small_clip
from tests.support.token_networks import images, moments, with_everything


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
    """Uneven batches give what all images at once give.

    The moments of the map are always by channel (docs/provenance.md).
    """
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
