"""Every method on a CLIP: what it changes at first, what trains, that texts are computed once, and its formulas written out."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.backbones.clip_outline import ClipOutline
from pmi_cl.datasets.input_form import InputForm
from pmi_cl.errors import UserError
from pmi_cl.models.clip.class_texts import ClassTexts
from pmi_cl.models.clip.clip_model import ClipModel
from pmi_cl.models.clip.coda_prompt import CodaPrompt
from pmi_cl.models.clip.pmi_clip import PmiClip
from pmi_cl.models.clip.vpt import Vpt, VptOptions
from pmi_cl.models.continual_model import RunOutline
from pmi_cl.models.training.schedules import learning_rate
from pmi_cl.utils.arguments.command_line import resolve
from pmi_cl.utils.run.training import Training
from tests.support.small_clips import letter_tokens, small_clip
from tests.support.small_runs import (
    CLIP_METHODS,
    begin,
    differences,
    epochs,
    finished,
    start,
    tensors_in,
    train_task,
    words_of,
)

TRAINED = [method for method in CLIP_METHODS if start(method).model.n_epochs() > 0]
LONG = {"n_classes": 4, "n_tasks": 2, "n_epochs": 8, "lr": 0.05, "optimizer": "adamw", "warmup_steps": 0}


def model_of(training: Training) -> Any:
    return training.model


def some_images(training: Training) -> Tensor:
    return training.dataset.normalise(training.dataset.test.images[:6])


@functools.cache
def trained(method: str) -> Training:
    """Task 0 and task 1 trained, so that nothing learned is at its start; not to be changed."""
    training = start(method, **LONG)
    train_task(training, 0).end_task(training.shown)
    train_task(training, 1).net.eval()
    return training


# The base.


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.0), ("quarter", 0.0), ("constant", 2.0)])
def test_rates_rise_and_then_follow_the_schedule(schedule: str, end: float) -> None:
    rates = [learning_rate(step, 50, 2.0, schedule, warmup=10) for step in range(51)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 5)
    part = np.arange(41) / 40
    shapes = {"cosine": 1 + np.cos(np.pi * part), "quarter": 2 * np.cos(np.pi * part / 2), "constant": np.full(41, 2.0)}
    np.testing.assert_allclose(rates[10:], shapes[schedule], atol=1e-12)
    assert rates[-1] == pytest.approx(end) and max(rates) == 2


@pytest.mark.parametrize("method", TRAINED)
def test_the_optimiser_has_the_rate_of_each_step(method: str) -> None:
    training = start(method, n_epochs=2, lr=0.5, warmup_steps=2)
    model: Any = begin(training, 0)
    steps, found = training.shown.steps_per_epoch(0, model.options.batch_size), []
    for epoch in range(2):
        for step, batch in enumerate(training.shown.train_batches(0, epoch, model.options.batch_size)):
            model.observe(*batch, epoch=epoch, step=step)
            found += [group["lr"] for group in model.opt.param_groups]
    assert steps == 3
    assert found == pytest.approx([0.25, 0.5, *(0.25 * (1 + math.cos(math.pi * done / 4)) for done in range(4))])


def test_the_data_set_gives_images_as_the_options_say() -> None:
    form = start("vpt", resize="crop", clip_augment="crop").dataset.form
    assert form is not None and (form.size, form.resize, form.augment) == (16, "crop", "crop")
    plain = start("zsclip").dataset.form
    assert plain is not None and (plain.resize, plain.augment) == ("squash", "none")


def test_zero_shot_logits_are_scaled_cosines() -> None:
    model, images = model_of(start("zsclip")), some_images(start("zsclip"))
    model.current_task = 1
    names = ["zero", "one", "two", "three"]
    with torch.no_grad():
        found = model(images)
        features = model.net.features(images).numpy()
        text = model.net.encode_text(model.net.tokenize([f"a {name}." for name in names])).numpy()
    cosines = (features @ text.T) / np.linalg.norm(features, axis=1)[:, None] / np.linalg.norm(text, axis=1)
    np.testing.assert_allclose(found, cosines * math.exp(float(model.net.logit_scale)), rtol=1e-4)


def test_an_ensemble_is_the_mean_of_normalised_features() -> None:
    net, names, templates = small_clip(), ["cat", "dog", "owl"], ["a {}.", "the {}", "{}, a pet"]
    texts = ClassTexts(net, names, templates)
    for features in (texts.features(range(1, 3)).detach(), texts.frozen(range(1, 3))):
        for name, row in zip(names[1:], features, strict=True):
            each = net.encode_text(net.tokenize([template.format(name) for template in templates])).detach().numpy()
            mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0)
            np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)


def test_a_name_may_hold_braces_and_none_may_be_missing() -> None:
    net = small_clip()
    with pytest.raises(UserError, match="class 1 of the data set has no name"):
        ClassTexts(net, ["cat", " "], ["a {}."])
    net.tokenizer = lambda texts, length: torch.tensor([[len(text)] * (length - 1) + [0] for text in texts])
    assert ClassTexts(net, ["{0}"], ["a {}."]).tokens[0, 0, 0] == len("a {0}.")


@pytest.mark.parametrize("method", CLIP_METHODS)
def test_the_evaluation_uses_the_templates_it_is_told_to(method: str) -> None:
    training = start(method, eval_templates="prompt")
    model: Any = begin(training, 0)
    assert model.evaluation_texts is model.texts
    again = start(method)
    again.dataset.TEMPLATES = ("a {}.", "the {}.")
    vars(again.args)["eval_templates"] = "ensemble"
    other = type(model)(small_clip(), model.loss, again.args, again.dataset.augment, again.dataset)
    assert other.evaluation_texts.templates == ("a {}.", "the {}.") and other.texts.templates == ("a {}.",)
    assert other.seen_text().shape == model.seen_text().shape and not torch.allclose(
        other.seen_text(), model.seen_text()
    )


class CountingTower(nn.Module):
    """A text tower that counts the texts it encodes, by whether gradients are on."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower, self.blocks, self.with_gradient, self.without = tower, tower.blocks, 0, 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.with_gradient += len(tokens) * torch.is_grad_enabled()
        self.without += len(tokens) * (not torch.is_grad_enabled())
        features: Tensor = self.tower(tokens)
        return features


@pytest.mark.parametrize("method", CLIP_METHODS)
def test_texts_are_encoded_no_more_often_than_they_change(method: str) -> None:
    training = start(method)
    model = model_of(training)
    tower = model.net.text_tower = CountingTower(model.net.text_tower)
    training.run()
    steps = training.steps
    if (
        method == "pmi_moe"
    ):  # the seen classes at each step and each evaluation, the old ones twice before each task: HKD's and TKD's
        assert (tower.with_gradient, tower.without) == ((2 + 4 + 6) * steps // 3, (2 + 4 + 6) + 2 * (2 + 4))
    elif model.TRAINS_TEXT:  # the task's two classes at each step, the seen ones at each evaluation
        assert (tower.with_gradient, tower.without) == (2 * steps, 2 + 4 + 6)
    else:  # each of the six classes once; a head needs none
        assert (tower.with_gradient, tower.without) == (0, 0 if isinstance(model, CodaPrompt) else 6)


# What trains.


def place_names(model: ClipModel) -> dict[int, set[str]]:
    """Every name in ``state_dict`` of each tensor that the method holds: what stands in a block has two."""
    names: dict[int, set[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        names.setdefault(id(value), set()).add(name)
    return names


@pytest.mark.parametrize("method", CLIP_METHODS)
@pytest.mark.parametrize("weight_decay", [0, 0.1])
def test_only_what_is_learned_moves(method: str, weight_decay: float) -> None:
    """In the second task too: the optimiser of the first has seen what is frozen now."""
    training = start(method, optim_wd=weight_decay, warmup_steps=0)
    model = model_of(training)
    for task in range(2):
        begin(training, task)
        names = place_names(model)
        wanted = {name for parameter in model.trainable_parameters() for name in names[id(parameter)]}
        before = {name: value.clone() for name, value in model.state_dict().items()}
        for _ in epochs(training, task):
            pass
        assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} == wanted
        model.end_task(training.shown)
    assert bool(wanted) == (method in TRAINED)
    assert {name for name, value in model.net.named_parameters() if value.requires_grad} <= {
        name.removeprefix("net.") for name in wanted
    }


@pytest.mark.parametrize("method", TRAINED)
def test_the_towers_stay_in_evaluation_mode(method: str) -> None:
    training = start(method)
    model: Any = begin(training, 0)
    model.set_modes()
    ours = {id(module) for module in model.learned.modules()}
    assert all(module.training == (id(module) in ours) for module in (*model.net.modules(), *model.learned.modules()))


@pytest.mark.parametrize("method", TRAINED)
def test_it_learns(method: str) -> None:
    training = start(method, **{**LONG, "n_epochs": 12, "head_input": "raw"})
    model: Any = begin(training, 0)
    model.net.logit_scale.data.fill_(math.log(100))  # as trained CLIPs have it
    losses: list[list[float]] = []
    for epoch in range(12):
        model.set_modes()
        batches = enumerate(training.shown.train_batches(0, epoch, model.options.batch_size))
        losses.append([float(model.observe(*batch, epoch=epoch, step=step)["loss"]) for step, batch in batches])
    assert np.mean(losses[-1]) < 0.85 * np.mean(losses[0])


@pytest.mark.parametrize("method", TRAINED)
def test_a_seed_decides_what_is_learned(method: str) -> None:
    one, same, other = (
        finished(method, n_epochs=1, stop_after=1, seed=seed).model.learned.state_dict() for seed in (0, 0, 1)
    )
    assert differences(one, same) == []
    assert not any(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", TRAINED)
def test_each_step_has_its_own_random_numbers(method: str) -> None:
    training = trained(method)
    model = model_of(training)
    inputs, labels, raw = next(training.shown.train_batches(1, 0, 16))
    learned = {name: value.clone() for name, value in model.learned.state_dict().items()}

    def loss(step: int) -> float:
        model.learned.load_state_dict(learned)
        model.opt = model.new_optimizer(model.trainable_parameters())
        model.set_modes()
        value = float(model.observe(inputs, labels, raw, epoch=0, step=step)["loss"])
        model.learned.load_state_dict(learned)
        model.net.eval()
        return value

    assert loss(0) == loss(0) and (loss(0) != loss(1)) == (method == "moe_adapters" or isinstance(model, PmiClip))


@pytest.mark.parametrize("method", CLIP_METHODS)
def test_a_checkpoint_leaves_the_towers_out(method: str) -> None:
    training = start(method)
    train_or_begin(training)
    model = model_of(training)
    frozen = {id(parameter) for parameter in model.net.parameters() if not parameter.requires_grad} - {
        id(parameter) for parameter in model.learned.parameters()
    }
    towers = {value.data_ptr() for value in model.net.parameters() if id(value) in frozen}
    assert towers and not towers & {tensor.data_ptr() for tensor in tensors_in(model.state())}


def train_or_begin(training: Training) -> None:
    train_task(training, 0) if training.model.n_epochs() else begin(training, 0)


@pytest.mark.parametrize("method", CLIP_METHODS)
def test_maps_of_the_patch_convolution_stand_for_images(method: str) -> None:
    training = start(method)
    begin(training, 0)
    model, images = model_of(training), some_images(training)
    maps = model.net.pieces()[0](images)
    assert torch.equal(model.features_of_maps(maps), model.image_features(images))
    context = model.context(maps)
    assert torch.equal(model.features_of_maps(maps, context), model.image_features(images))


@pytest.mark.parametrize("method", TRAINED)
def test_the_local_loss_leaves_old_classes_out(method: str) -> None:
    training = trained(method)
    model = model_of(training)
    inputs, labels, _ = next(training.shown.train_batches(1, 0, 16))
    with torch.no_grad():
        features = model.image_features(inputs)
        masked = model.class_logits(features, range(4)).clone()
        masked[:, :2] = -torch.inf
        torch.testing.assert_close(model.local_loss(features, labels), F.cross_entropy(masked, labels))


class Doubled(Vpt):
    """A method that uses the places that are left for methods on top."""

    NAME = ""
    Options = VptOptions

    def ce_factor(self) -> float:
        return 2.0

    def extra_losses(self, features: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        return {"size": 0.1 * features.square().mean()}


def test_a_method_on_top_weighs_the_local_loss_and_adds_its_own() -> None:
    plain, run = start("vpt"), resolve(words_of("vpt"))
    doubled: Any = Doubled(small_clip(), F.cross_entropy, run.args, plain.dataset.augment, plain.dataset)
    batch = next(plain.shown.train_batches(0, 0, 16))
    first = begin(plain, 0).observe(*batch)
    doubled.grow()
    doubled.begin_task(plain.shown)
    found = doubled.observe(*batch)
    assert found.keys() == {"loss", "ce", "size"}
    torch.testing.assert_close(found["ce"], 2 * first["ce"])
    torch.testing.assert_close(found["loss"], found["ce"] + found["size"])


# VPT.


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
    tokens = model.texts.tokens.flatten(0, 1)
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
    kept = model.seen_text()
    assert model.seen_text() is kept
    batch = next(training.shown.train_batches(0, 0, 16))
    model.observe(*batch)
    assert not torch.equal(model.seen_text(), kept)


def test_frozen_texts_are_clips_whatever_was_trained() -> None:
    model, bare = model_of(trained("moe_adapters")), model_of(start("zsclip"))
    assert torch.equal(model.text_features(range(4), trained=False), bare.text_features(range(4)))
    assert not torch.allclose(model.text_features(range(4)), bare.text_features(range(4)))
    assert all(block.adapter is not None for block in model.net.text_blocks)


# What does not fit.

SMALL = ClipOutline("small-clip", 32, 24, letter_tokens)


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("zsclip", {"prompt_template": "a digit"}, "has no place for the name: write {} there"),
        (
            "zsclip",
            {"prompt_template": "a {x} {}"},
            "'a {x} {}': {} is the place for the name, and there is no other field",
        ),
        ("moe_adapters", {"moe_top_k": 3}, "--moe_top_k 3: there are --moe_experts 2 to choose from"),
        ("coda_prompt", {"prompt_len": 5}, "--prompt_len 5: half goes to the keys"),
        ("coda_prompt", {"pool_size": 2}, "at least one component for each of the 3 tasks"),
        ("coda_prompt", {"pool_size": 33}, "only 32 directions are orthogonal in small-clip"),
        ("vpt", {"prompt_template": "a photo of the one digit {}."}, "longer than the 24 tokens that small-clip reads"),
    ],
)
def test_values_that_do_not_go_together_are_refused_before_anything_is_built(
    method: str, flags: dict[str, Any], message: str
) -> None:
    run = resolve(words_of(method, **flags))
    with pytest.raises(UserError) as caught:
        type(start(method).model).check(run.args, RunOutline(6, 3, SMALL))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("vpt", {"prompt_template": "a photo of the digit {}."}, "longer than the 24 tokens that small-clip reads"),
        ("coda_prompt", {"pool_size": 33}, "only 32 directions are orthogonal in small-clip"),
    ],
)
def test_values_that_do_not_fit_the_network_are_refused(method: str, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        start(method, **flags)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_form_comes_first() -> None:
    training = start("vpt")
    training.dataset.form = None
    with pytest.raises(AssertionError, match="present_as"):
        Vpt(small_clip(), F.cross_entropy, training.args, None, training.dataset)
    assert InputForm(16, (0.5,), (0.5,)).resize == "squash"
