"""A small CLIP image tower with everything that may stand in it, its moments, its statistics by
hooks.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from pmi_cl.backbones.adapters import MixtureOfAdapters
from pmi_cl.backbones.clip_network import ClipNetwork
from pmi_cl.backbones.prompts import DeepPrompt, PromptPool
from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.features.statistics import Axis, Moments
from pmi_cl.inversion.networks.token_statistics import TokenMoments, measure_token_moments
from pmi_cl.inversion.objectives import DirectionalTV, FeatureMatch, StatisticsMatch
from pmi_cl.inversion.ways.pmi import PmiConfig
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
    """Return random images (count, 3, 16, 16)."""
    return torch.randn(count, 3, 16, 16, generator=seeded(seed, "images"))


def maps(count: int, seed: int = 0) -> Tensor:
    """Return random outputs of the patch convolution (count, 32, 4, 4)."""
    with torch.no_grad():
        return small_clip().pieces()[0](images(count, seed))


@functools.cache
def moments(axis: Axis = "channel") -> list[TokenMoments]:
    """Return the moments of pieces 1 and up."""
    return measure_token_moments(small_clip().pieces(), images(24).split(10), axis)[1:]


def with_everything() -> ClipNetwork:
    """Return a CLIP whose blocks have a prompt, a prefix and an adapter that all do something."""
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
    """Return features and KLs of what open_clip's own modules get, caught by hooks.

    With ``whole`` at the inputs of the blocks, else at the inputs of attention and MLP.
    """
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
