"""Every method on a CLIP: rates, images, texts, losses, and the places left for methods on top."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pmi_cl.errors import UserError
from pmi_cl.models.clip.coda_prompt import CodaPrompt
from pmi_cl.models.clip.replay import Replay
from pmi_cl.models.clip.text_classifier import ClassTexts
from pmi_cl.models.clip.vpt import Vpt, VptOptions
from pmi_cl.models.training.schedules import learning_rate
from pmi_cl.utils.arguments.command_line import resolve
from tests.support.clip_runs import TRAINED, model_of, some_images, trained
from tests.support.small_clips import small_clip
from tests.support.small_runs import CLIP_METHODS, begin, start, words_of


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
    np.testing.assert_allclose(found, cosines * math.exp(float(model.net.logit_scale)), rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_the_mean_of_normalised_features() -> None:
    """Classes may have templates of their own, and other numbers of them."""
    net, names = small_clip(), ["cat", "dog", "owl"]
    templates = [["a {}."], ["a {}.", "the {}", "{}, a pet"], ["the {}", "an {}"]]
    texts = ClassTexts(net, names, templates)
    for features in (texts.features(range(1, 3)).detach(), texts.frozen(range(1, 3))):
        for name, sentences, row in zip(names[1:], templates[1:], features, strict=True):
            each = net.encode_text(net.tokenize([template.format(name) for template in sentences])).detach().numpy()
            mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0)
            np.testing.assert_allclose(row, mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)


def test_a_name_may_hold_braces_and_none_may_be_missing() -> None:
    net = small_clip()
    with pytest.raises(UserError, match="class 1 of the data set has no name"):
        ClassTexts(net, ["cat", " "], [["a {}."]] * 2)
    net.tokenizer = lambda texts, length: torch.tensor([[len(text)] * (length - 1) + [0] for text in texts])
    assert ClassTexts(net, ["{0}"], [["a {}."]]).tokens[0, 0] == len("a {0}.")


@pytest.mark.parametrize("method", CLIP_METHODS)
def test_the_evaluation_uses_the_templates_it_is_told_to(method: str) -> None:
    training = start(method, eval_templates="prompt")
    model: Any = begin(training, 0)
    assert model.classifier.evaluation_texts is model.classifier.texts
    again = start(method)
    again.dataset.TEMPLATES = ("a {}.", "the {}.")
    vars(again.args)["eval_templates"] = "ensemble"
    other = type(model)(small_clip(), model.loss, again.args, again.dataset.augment, again.dataset)
    assert other.classifier.evaluation_texts.templates == [("a {}.", "the {}.")] * 6
    assert other.classifier.texts.templates == [("a {}.",)] * 6
    one, another = (each.classifier.evaluation_features(range(each.n_seen_classes)) for each in (model, other))
    assert one.shape == another.shape and not torch.allclose(one, another)


class CountingTower(nn.Module):
    """A text tower that counts the texts it encodes, with gradients and without."""

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
    # The seen classes at each step and each evaluation, the old ones twice before each task:
    # HKD's and TKD's.
    if method == "pmi_moe":
        assert (tower.with_gradient, tower.without) == ((2 + 4 + 6) * steps // 3, (2 + 4 + 6) + 2 * (2 + 4))
    elif model.TRAINS_TEXT:  # the task's two classes at each step, the seen ones at each evaluation
        assert (tower.with_gradient, tower.without) == (2 * steps, 2 + 4 + 6)
    else:  # each of the six classes once; a head needs none
        assert (tower.with_gradient, tower.without) == (0, 0 if isinstance(model, CodaPrompt) else 6)


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


class DoublingReplay(Replay):
    """Uses the places that are left for what a method does for old classes."""

    def ce_factor(self) -> float:
        return 2.0

    def losses(self, features: Tensor, labels: Tensor, epoch: int, step: int) -> dict[str, Tensor]:
        return {"size": 0.1 * features.square().mean()}


class Doubled(Vpt):
    """A method with that replay."""

    NAME = ""
    Options = VptOptions
    REPLAY = DoublingReplay


def test_a_replay_weighs_the_local_loss_and_adds_its_own() -> None:
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
