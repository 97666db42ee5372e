"""Test VPT, CODA-Prompt and the mixture of adapters: what each adds to a CLIP, its formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pmi_cl.errors import UserError
from tests.support.clip_runs import LONG, model_of, some_images, trained
from tests.support.small_clips import small_clip
from tests.support.small_runs import begin, epochs, start, train_task


def test_deep_prompts_are_four_in_every_block_and_are_the_whole_difference_to_clip() -> None:
    training = start("vpt")
    model, images = model_of(training), some_images(training)
    assert [value.shape for value in model.trainable_parameters()] == [(4, 32)] * 2
    with torch.no_grad():  # torch's attention has another path, with other last bits, where there are gradients
        bare = small_clip()(images)
        assert not torch.allclose(model.image_features(images), bare)
        for block in model.net.blocks:
            block.prompt = None
        assert torch.equal(model.image_features(images), bare)


def test_prompts_can_be_left_out_of_the_upper_blocks() -> None:
    model = model_of(start("vpt", vpt_depth=1, vpt_tokens=3))
    assert [block.prompt is not None for block in model.net.blocks] == [True, False]
    assert model.net.blocks[0].prompt().shape == (3, 32)


# CODA-Prompt.


def test_pools_grow_by_the_tasks_share_and_earlier_components_stay() -> None:
    training = start("coda_prompt")
    model: Any = train_task(training, 0)
    first = {name: value.detach().clone() for name, value in model.learned["prompts"].named_parameters()}
    train_task(training, 1)
    assert [pool.tasks for pool in model.pools] == [2, 2] and len(model.pools[0].keys[0]) == 2  # 6 components, 3 tasks
    now = dict(model.learned["prompts"].named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in first.items())
    per_task = 2 * 2 * (8 * 32 + 32 + 32)  # blocks, components, and P, K and A of each
    head = 16 * 6 + 6
    assert sum(parameter.numel() for parameter in model.trainable_parameters()) == per_task + head


def test_the_head_of_other_classes_does_not_move() -> None:
    training = start("coda_prompt")
    train_task(training, 0)
    model: Any = begin(training, 1)
    before = [value.detach().clone() for value in model.learned["head"].parameters()]
    for _ in epochs(training, 1):
        pass
    for value, old in zip(model.learned["head"].parameters(), before, strict=True):
        same = (value.detach() == old).flatten(1).all(1) if value.dim() > 1 else value.detach() == old
        assert same.tolist() == [True, True, False, False, True, True]


def test_queries_are_those_of_the_bare_tower() -> None:
    training = trained("coda_prompt")
    images = some_images(training)
    bare, model = small_clip(), model_of(training)
    assert torch.equal(model.context(model.net.pieces()[0](images)), bare.query_from(bare.pieces()[0](images)))
    assert not torch.allclose(model.image_features(images), bare(images))


def test_the_head_reads_features_as_they_are_or_normalised() -> None:
    features = torch.randn(3, 16)
    raw, unit = (model_of(start("coda_prompt", head_input=form)) for form in ("raw", "unit"))
    weight, bias = unit.learned["head"].weight, unit.learned["head"].bias
    torch.testing.assert_close(raw.class_logits(features, range(2, 4)), features @ weight[2:4].T + bias[2:4])
    expected = features / features.norm(dim=1, keepdim=True) @ weight[2:4].T + bias[2:4]
    torch.testing.assert_close(unit.class_logits(features, range(2, 4)), expected)


def test_the_components_orthogonality_is_added_where_it_has_a_weight() -> None:
    training = start("coda_prompt", mu=0.5)
    model: Any = begin(training, 0)
    with torch.no_grad():
        model.pools[0].keys[0].mul_(2)  # orthonormal otherwise: two keys of squared length 4
    losses = model.losses(*next(training.shown.train_batches(0, 0, 16))[:2], 0, 0)
    assert float(losses["orthogonality"].detach()) == pytest.approx(0.5 * (2 * 9 / 4), rel=1e-5)
    assert "orthogonality" not in model_of(trained("coda_prompt")).losses(
        *next(training.shown.train_batches(1, 0, 4))[:2], 0, 0
    )


# MoE-Adapters.


@pytest.mark.parametrize("training_mode", [False, True])
def test_untrained_adapters_change_exactly_nothing(training_mode: bool) -> None:
    training = start("moe_adapters")
    model, images, bare = model_of(training), some_images(training), small_clip()
    model.learned.train(training_mode)
    tokens = model.classifier.texts.tokens
    with torch.no_grad():
        assert torch.equal(model.image_features(images), bare.features(images))
        assert torch.equal(model.net.encode_text(tokens), bare.encode_text(tokens))


def test_adapters_stand_in_every_block_of_both_towers() -> None:
    model = model_of(start("moe_adapters"))
    count = {width: 2 * (2 * 64 * width + 64 + width) + 4 * width for width in (32, 24)}
    assert sum(parameter.numel() for parameter in model.trainable_parameters()) == 2 * count[32] + 2 * count[24]
    assert all(block.adapter is not None for block in (*model.net.blocks, *model.net.text_blocks))


def test_the_evaluation_is_deterministic_and_follows_each_step() -> None:
    training = start("moe_adapters", **LONG)
    train_task(training, 0)
    model, images = model_of(training), some_images(training)
    model.net.eval()
    first = model(images).detach()
    assert torch.equal(model(images), first)
    kept = model.classifier.evaluation_features(range(model.n_seen_classes))
    assert model.classifier.evaluation_features(range(model.n_seen_classes)) is kept
    batch = next(training.shown.train_batches(0, 0, 16))
    model.observe(*batch)
    assert not torch.equal(model.classifier.evaluation_features(range(model.n_seen_classes)), kept)


def test_frozen_texts_are_clips_whatever_was_trained() -> None:
    model, bare = model_of(trained("moe_adapters")), model_of(start("zsclip"))
    assert torch.equal(model.classifier.features(range(4), trained=False), bare.classifier.features(range(4)))
    assert not torch.allclose(model.classifier.features(range(4)), bare.classifier.features(range(4)))
    assert all(block.adapter is not None for block in model.net.text_blocks)


def test_a_pool_that_has_learned_other_queries_is_refused() -> None:
    """Until version 0.1.0 the query was taken below the last LayerNorm."""
    model: Any = start("coda_prompt").model
    state = {name: value for name, value in model.state().items() if name != "query"}
    with pytest.raises(UserError, match=r"^the checkpoint's prompts were trained with queries below .*: train anew$"):
        start("coda_prompt").model.load_state(state)
