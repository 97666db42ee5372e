"""Test the parts of PMI on a CLIP, and options that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from pmi_cl.backbones.clip_pieces import PatchConv, bare
from pmi_cl.errors import UserError
from pmi_cl.models.run_outline import RunOutline
from pmi_cl.seeding import seeded
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.preflight import preflight
from tests.support.clip_runs import before_second_task
from tests.support.small_clips import small_clip
from tests.support.small_runs import start, words_of


def test_bare_blocks_get_back_what_was_added() -> None:
    model: Any = start("pmi_codap").model
    images = torch.rand(2, 3, 16, 16)
    before = [(block.prompt, block.prefix, block.adapter) for block in model.net.blocks]
    assert any(prefix is not None for _, prefix, _ in before)
    with pytest.raises(RuntimeError, match="stop"), bare(model.net.blocks):
        with torch.no_grad():
            assert torch.equal(model.net.features(images), small_clip().features(images))
        raise RuntimeError("stop")
    assert [(block.prompt, block.prefix, block.adapter) for block in model.net.blocks] == before


def test_the_nearest_image_of_a_maps_image_is_that_image() -> None:
    convolution = small_clip(width=64).pieces()[0]  # as many channels as a patch has values, or more
    assert isinstance(convolution, PatchConv)
    images = torch.randn(2, 3, 16, 16, generator=seeded(1))
    with torch.no_grad():
        maps = convolution(images)
        torch.testing.assert_close(convolution.nearest_images(maps), images, rtol=1e-3, atol=1e-4)
        off = maps + torch.randn(maps.shape, generator=seeded(2))
        nearest = convolution.nearest_images(off)
        gap = (convolution(nearest) - off).square().sum()
        for seed in range(5):
            other = nearest + 0.05 * torch.randn(nearest.shape, generator=seeded(seed))
            assert (convolution(other) - off).square().sum() > gap


# What does not fit.


def test_tokens_that_are_dropped_have_no_statistics_of_their_own() -> None:
    run = resolve(words_of("pmi_vpt", inversion="smi", inv_axis="token"))
    with pytest.raises(UserError, match="say --inv_axis channel"):
        type(start("pmi_vpt").model).check(run.args, RunOutline(10, 5))


def test_grids_of_a_preset_can_be_taken_back() -> None:
    words = ["--model", "pmi_vpt", "--dataset", "seq-cifar100", "--model_config", "code"]
    assert resolve(words).args.pmi_grids == (2, 4, 8, 14)
    assert resolve([*words, "--pmi_grids", "none"]).args.pmi_grids == ()


def test_a_grid_finer_than_the_map_is_refused() -> None:
    """The map of clip-tiny is 4 x 4.

    A preset's grids are no exception: they would be optimised for nothing.
    """
    preflight(resolve(words_of("pmi_vpt", pmi_grids="2,4")))
    for grids, fitting in (("9", "none"), ("2,4,8,14", "2,4")):
        with pytest.raises(
            UserError, match=f"--pmi_grids {grids}: the map of clip-tiny is 4 x 4: say --pmi_grids {fitting}$"
        ):
            preflight(resolve(words_of("pmi_vpt", pmi_grids=grids)))


def test_grids_become_finer() -> None:
    run = resolve(words_of("pmi_vpt", pmi_grids="4,2"))
    with pytest.raises(UserError, match="--pmi_grids 4,2: give them from the coarsest to the finest"):
        type(start("pmi_vpt").model).check(run.args, RunOutline(10, 5))


def test_what_a_coarse_grid_shows_is_what_is_handed_down() -> None:
    _, model = before_second_task("pmi_vpt", pmi_grids="2", pmi_steps=3, inv_steps=1, inv_lr=1e-30)
    model.current_task = 1
    model.replay.prepare()
    corners = model.replay.buffer.images[:, :, [0, 0, 3, 3], [0, 3, 0, 3]].unflatten(
        2, (2, 2)
    )  # bilinear: the corners are the four cells
    shown = F.interpolate(corners, size=(4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model.replay.buffer.images, shown, rtol=1e-4, atol=1e-5)
