"""Test DCMI against loops and autograd: generator, critic, losses, prediction in two steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pmi_cl.errors import UserError
from pmi_cl.inversion.ways.conditional_generator import (
    ConditionalGenerator,
    Critic,
    alignment_loss,
    class_profiles,
    critic_loss,
    doublings_of_maps,
    gradient_penalty,
)
from pmi_cl.models.training.two_steps import head_distances, two_step_scores
from pmi_cl.seeding import seeded
from tests.support.small_runs import begin, epochs, in_the_third_task, start, train_task

UNEQUAL = {"classes_per_task": "3,1,2", "train_per_class": 8, "n_epochs": 1, "batch_size": 8}
BRIEF = {"generator_epochs": 1, "generator_critic_steps": 1, "generator_critic_width": 2}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed, "dcmi"))


# Generator and critic.


def test_images_are_made_of_a_mixture_of_embeddings_of_length_one() -> None:
    torch.manual_seed(0)
    generator = ConditionalGenerator(4, (16, 16)).eval()
    shares, z = randn(3, 4).softmax(1), randn(3, 100)
    rows = generator.embedding.weight
    mixed = [sum(float(share) * row for share, row in zip(line, rows, strict=True)) for line in shares]
    mixtures = torch.stack([row / row.norm() for row in mixed if isinstance(row, Tensor)])
    maps = generator.linear(torch.cat([z, mixtures], dim=1)).view(3, ConditionalGenerator.WIDTH, 8, 8)
    torch.testing.assert_close(generator(z, shares), generator.layers(maps), rtol=1e-4, atol=1e-5)
    assert generator(z, shares).shape == (3, 3, 16, 16)


def test_the_layers_of_the_original_at_32_pixels() -> None:
    layers = list(ConditionalGenerator(5, (32, 32)).layers)
    assert [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)] == [128, 64, 3]
    assert {layer.eps for layer in layers if isinstance(layer, nn.BatchNorm2d)} == {1e-5}
    assert ConditionalGenerator(5, (32, 32)).small == (8, 8)
    critic = list(Critic((32, 32)).layers)
    widths = [layer.out_channels for layer in critic if isinstance(layer, nn.Conv2d)]
    assert widths == [64, 128, 128, 256, 256, 512, 512]
    assert {layer.negative_slope for layer in critic if isinstance(layer, nn.LeakyReLU)} == {0.1}
    kernels = [(layer.kernel_size[0], layer.stride[0]) for layer in critic if isinstance(layer, nn.Conv2d)]
    assert kernels == [(3, 1), (4, 2)] * 3 + [(3, 1)]
    assert Critic((32, 32)).score.in_features == 4 * 4 * 512


def test_the_first_maps_are_a_quarter_as_wide_as_the_image() -> None:
    """At 32 and at 64 pixels, the original's sizes. Other maps have 8 to 16 pixels."""
    sizes = {side: side // 2 ** doublings_of_maps((side, side)) for side in (8, 16, 32, 64, 128, 224)}
    assert sizes == {8: 8, 16: 8, 32: 8, 64: 16, 128: 16, 224: 14}


def test_the_critic_has_a_weight_for_each_pixel_of_its_last_map() -> None:
    torch.manual_seed(0)
    critic, images = Critic((16, 24), 2), randn(2, 3, 16, 24)
    maps, weight = critic.layers(images), critic.score.weight.view(16, 2, 3)
    expected = (maps * weight).sum(dim=(1, 2, 3)) + critic.score.bias
    torch.testing.assert_close(critic(images), expected)


def test_profiles_and_alignment_against_a_loop() -> None:
    features, prototypes, labels = randn(4, 6), randn(3, 6, seed=1), torch.tensor([2, 0, 0, 1])

    def profile(feature: Tensor) -> list[float]:
        cosines = [float(feature @ p / feature.norm() / p.norm()) for p in prototypes]
        return torch.tensor([7 * cosine for cosine in cosines], dtype=torch.float64).softmax(0).tolist()

    total = 0.0
    for feature, label in zip(features, labels.tolist(), strict=True):
        wanted, found = profile(prototypes[label]), profile(feature)
        total -= sum(w * float(torch.tensor(f).log()) for w, f in zip(wanted, found, strict=True))
    assert float(alignment_loss(features, labels, prototypes, 7.0)) == pytest.approx(total / 4, rel=1e-4)
    assert class_profiles(features, prototypes, 7.0)[1].exp().tolist() == pytest.approx(profile(features[1]), rel=1e-4)


def test_the_gradient_penalty_of_a_critic_whose_gradient_is_known() -> None:
    """A linear critic has the same gradient everywhere; that of x^2 / 2 is x itself."""
    weight, parts = randn(3 * 4 * 4), torch.tensor([0.25, 1.0])
    real, fake = randn(2, 3, 4, 4, seed=1), randn(2, 3, 4, 4, seed=2)
    found = gradient_penalty(lambda x: x.flatten(1) @ weight, real, fake, parts)
    assert float(found) == pytest.approx((float(weight.norm()) - 1) ** 2, rel=1e-4)
    found = gradient_penalty(lambda x: x.flatten(1).square().sum(1) / 2, real, fake, parts)
    lengths = [float((0.25 * real[0] + 0.75 * fake[0]).norm()), float(real[1].norm())]
    assert float(found.detach()) == pytest.approx(sum((length - 1) ** 2 for length in lengths) / 2, rel=1e-4)


def test_the_critics_loss_is_its_sum_and_trains_the_critic() -> None:
    torch.manual_seed(0)
    critic, parts = Critic((8, 8), 2), torch.tensor([0.1, 0.6])
    real, fake = randn(2, 3, 8, 8, seed=1), randn(2, 3, 8, 8, seed=2)
    loss = critic_loss(critic, real, fake, parts, penalty=3.0)
    expected = critic(fake).mean() - critic(real).mean() + 3 * gradient_penalty(critic, real, fake, parts)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    weights = {name: value.grad for name, value in critic.named_parameters() if name.endswith("weight")}
    assert len(weights) == 8 and all(grad is not None and bool(grad.any()) for grad in weights.values())


# Prediction and losses.


def test_the_nearest_prototype_chooses_the_task_and_its_head_the_class() -> None:
    logits, features, prototypes = 3 * randn(40, 6), randn(40, 5, seed=1), 4 * randn(6, 5, seed=2)
    sizes, firsts = (3, 2, 1), (0, 3, 5)
    scores = two_step_scores(logits, features, prototypes, sizes)
    chosen = set()
    for row in range(40):
        cosines = [float(features[row] @ p / p.norm()) for p in prototypes]
        task = (0, 0, 0, 1, 1, 2)[cosines.index(max(cosines))]
        chosen.add(task)
        own = logits[row, firsts[task] : firsts[task] + sizes[task]]
        assert int(scores[row].argmax()) == firsts[task] + int(own.argmax())
        for first, size in zip(firsts, sizes, strict=True):  # the order within every task is its head's
            part = slice(first, first + size)
            assert scores[row, part].argsort().tolist() == logits[row, part].argsort().tolist()
    assert chosen == {0, 1, 2}


def test_the_distance_of_logits_is_a_mean_over_heads() -> None:
    logits, teacher = randn(4, 5), randn(4, 5, seed=1)
    total = sum(
        float((logits[i, part] - teacher[i, part]).square().sum()) ** 0.5
        for part in (slice(3), slice(3, 5))
        for i in range(4)
    )
    assert float(head_distances(logits, teacher, (3, 2))) == pytest.approx(total / 4 / 2, rel=1e-5)


@pytest.mark.parametrize("where", ["generated", "all"])
def test_a_step_minimises_the_sum_of_three_losses(where: str) -> None:
    training, model = in_the_third_task(
        "dcmi",
        **UNEQUAL,
        **BRIEF,
        lambda_feature=3,
        lambda_logit=2,
        ce_temperature=0.5,
        feature_on=where,
        label_augmentation=0,
    )
    inputs, labels, raw = next(training.shown.train_batches(2, 0, 8))
    together = torch.cat([inputs, model.draw_replay(8, 0, 0)[0]])
    net = copy.deepcopy(model.net)
    with torch.no_grad():
        logits, features = net(together, returnt="both")
        old_logits, old_features = model.teacher(together, returnt="both")
    rows = range(8, 16) if where == "generated" else range(16)
    cosines = [float(features[i] @ old_features[i] / features[i].norm() / old_features[i].norm()) for i in rows]
    lengths = [
        float((logits[i, part] - old_logits[i, part]).norm()) for part in (slice(3), slice(3, 4)) for i in range(16)
    ]
    local = (logits[:8, 4:] / 0.5).log_softmax(1)
    expected = {
        "ce": -sum(float(local[i, labels[i] - 4]) for i in range(8)) / 8,
        "feature": 3 * sum(1 - cosine for cosine in cosines) / len(cosines),
        "logit": 2 * sum(lengths) / 16 / 2,
    }
    found = model.observe(inputs, labels, raw, epoch=0, step=0)
    assert found.keys() == {"loss", *expected}
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_rotations_are_classes_of_the_first_task_alone() -> None:
    """The logits of class y, turned by k quarters, stand at 4 y + k, against a loop."""
    training = start("dcmi", **{**UNEQUAL, **BRIEF}, label_augmentation=1, ce_temperature=0.5)
    model: Any = begin(training, 0)
    model.begin_epoch(0, training.shown)
    model.set_modes()
    inputs, labels, raw = next(training.shown.train_batches(0, 0, 8))
    net, turned = copy.deepcopy(model.net), copy.deepcopy(model.turned)
    total = 0.0
    with torch.no_grad():
        images = torch.cat([torch.rot90(inputs, quarter, (2, 3)) for quarter in range(4)])
        upright, features = net(images, returnt="both")
        other = turned(features)
        for quarter in range(4):
            for i, label in enumerate(labels.tolist()):
                row = 8 * quarter + i
                scores = [*upright[row].tolist(), *other[row].tolist()]
                wanted = label if quarter == 0 else 3 + 3 * label + quarter - 1
                total -= float((torch.tensor(scores, dtype=torch.float64) / 0.5).log_softmax(0)[wanted]) / 32
    assert float(model.observe(inputs, labels, raw)["ce"]) == pytest.approx(total, rel=1e-4)
    model.end_task(training.shown)
    assert model.turned is None and model.net.head.sizes == [3]
    again: Any = start("dcmi", **{**UNEQUAL, **BRIEF}, label_augmentation=1).model
    again.load_state(copy.deepcopy(model.state()))  # between two tasks, without the dropped head's optimiser
    assert torch.equal(again.prototypes, model.prototypes)
    assert begin(training, 1).turned is None


def test_later_tasks_train_the_heads_and_the_top_of_the_network() -> None:
    training = start("dcmi", **{**UNEQUAL, **BRIEF}, trained_blocks=1)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    for _ in epochs(training, 1):
        pass
    moved = {name for name, value in model.net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith(("head.", f"blocks.{len(model.net.blocks) - 1}."))}


def test_prototypes_of_past_classes_are_never_updated() -> None:
    training = start("dcmi", **{**UNEQUAL, **BRIEF})
    train_task(training, 0).end_task(training.shown)
    model: Any = training.model
    first = model.prototypes.clone()
    train_task(training, 1).end_task(training.shown)
    assert first.shape == (3, 64) and model.prototypes.shape == (4, 64)
    assert torch.equal(model.prototypes[:3], first)


def test_images_that_are_not_square_are_not_turned() -> None:
    training = start("dcmi", label_augmentation=1)
    training.dataset.SIZE = (16, 8)
    with pytest.raises(UserError, match="16x8: give --label_augmentation 0"):
        training.model.check_data(training.dataset)


def test_the_rate_of_generator_and_critic_falls_by_epoch() -> None:
    training = start("dcmi", **{**UNEQUAL, **BRIEF, "generator_epochs": 2}, generator_lr=0.01)
    train_task(training, 0).end_task(training.shown)
    training.model.current_task = 1
    model: Any = training.model
    model.new_generator()
    rates = []
    for epoch in range(2):
        model._set_generator_rate(epoch)
        rates += [group["lr"] for opt in model.generator_opts for group in opt.param_groups]
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005])


def test_the_rate_of_adam_falls_along_a_cosine() -> None:
    training = start("dcmi", **{**UNEQUAL, "n_epochs": 4}, lr=0.2)
    model: Any = begin(training, 0)
    rates = []
    for epoch in range(4):
        model.begin_epoch(epoch, training.shown)
        rates += [group["lr"] for group in model.opt.param_groups]
    assert isinstance(model.opt, torch.optim.Adam)
    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5)])
