"""Every registered method: it learns, moves what it should and nothing else, repeats itself, and goes on exactly where it stopped."""

from __future__ import annotations

import copy
import functools
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pmi_cl.cli import main
from pmi_cl.errors import UserError
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.models.continual_model import ContinualModel
from pmi_cl.models.resnet.replay_training import ReplayTraining
from pmi_cl.models.training.losses import hard_distillation, local_cross_entropy, relational_distillation
from pmi_cl.seeding import global_seed
from pmi_cl.utils.run.training import Training
from tests.support.run_figures import same_figures
from tests.support.slow_references import numpy_moments
from tests.support.small_runs import (
    BACKBONE,
    CLIP_METHODS,
    EXTRAS,
    METHODS,
    RESNET_METHODS,
    StoppingHost,
    begin,
    differences,
    epochs,
    finished,
    finished_in_pieces,
    options_of,
    start,
    tensors_in,
    train_task,
    words_of,
)

# Ways to run that change what is trained or what a checkpoint holds; each is tried on the methods that have its flags.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "unfreezing": {
        "unfreezing": 1,
        "warmup_parts": "0.2,0.2",
        "classifier_part": 0.2,
        "classifier_lr": 0.05,
        "train_old_heads": 0,
        "n_epochs": 5,
    },
    "every extra": {**EXTRAS, "later_lr": 0.02},
}
CASES = [(method, way) for method in METHODS for way, flags in WAYS.items() if flags.keys() <= options_of(method)]
# Long enough to learn something: two tasks of two digits.
LONG = {
    "n_classes": 4,
    "n_tasks": 2,
    "train_per_class": 32,
    "n_epochs": 20,
    "lr": 0.05,
    "classifier_part": 0.5,
    "buffer_images": 60,
    "inv_batch": 60,
    "inv_start": "lowfreq",
    "inv_steps": 20,
    "generator_steps": 12,
    "generator_batch": 16,
}


@functools.cache
def uninterrupted(method: str, way: str) -> Training:
    """A short run, and in its host the safe points that it passed."""
    training = start(method, StoppingHost(), **WAYS[way])
    training.run()
    return training


@functools.cache
def long_run(method: str) -> Training:
    """A run that is long enough to learn."""
    return finished(method, **LONG)


def kind_of(method: str) -> type[ContinualModel]:
    return type(start(method).model)


JOINT = [method for method in METHODS if kind_of(method).JOINT]
ONE_BY_ONE = [method for method in METHODS if method not in JOINT]
UNTRAINED = [method for method in METHODS if start(method).model.n_epochs() == 0]
REPLAYING = [method for method in METHODS if issubclass(kind_of(method), ReplayTraining)]
REPLAY_CASES = [(method, way) for method, way in CASES if method in REPLAYING]


def test_the_registry_has_the_methods_of_the_project() -> None:
    assert {"joint", "pmi_rdfcil", "rdfcil", "sgd"} <= set(RESNET_METHODS)
    assert {"coda_prompt", "moe_adapters", "vpt", "zsclip"} <= set(CLIP_METHODS)
    assert {"pmi_rdfcil", "rdfcil"} <= set(REPLAYING)


@pytest.mark.parametrize("method", METHODS)
def test_stop_after_leaves_the_rest_of_the_tasks_out(method: str) -> None:
    """Joint training, too: its upper bound is that of the tasks that the others have learned."""
    training = finished(method, stop_after=2)
    assert [len(row) for row in training.class_il] == ([2] if method in JOINT else [1, 2])
    if method in JOINT:
        assert sum(training.model.net.head.sizes) == 4  # no logits for the classes of the third task


@pytest.mark.parametrize("method", RESNET_METHODS)
def test_learns_its_first_task(method: str) -> None:
    assert np.mean(long_run(method).class_il[0]) > (
        50 if method in JOINT else 90
    )  # joint: four classes in as many epochs


@pytest.mark.parametrize("method", METHODS)
def test_accuracies_are_those_of_the_network_in_evaluation_mode(method: str) -> None:
    training = long_run(method)
    dataset = training.dataset
    model = copy.deepcopy(training.model).eval()
    with torch.no_grad():
        right = model(dataset.normalise(dataset.test.images)).argmax(1) == dataset.test.labels
    by_task = [100 * float(right[dataset.test_indices(task)].double().mean()) for task in range(2)]
    assert training.class_il[-1] == pytest.approx(by_task)


@pytest.mark.parametrize("method", REPLAYING)
def test_remembers_more_than_fine_tuning(method: str) -> None:
    assert long_run(method).class_il[1][0] > long_run("sgd").class_il[1][0] + 30


@pytest.mark.parametrize(("method", "way"), CASES)
def test_goes_on_bit_for_bit_from_a_checkpoint_anywhere(method: str, way: str, tmp_path: Path) -> None:
    """Stopped between the tasks and in the middle of every epoch and phase of one; each piece is run by new objects that know a file
    alone."""
    whole = uninterrupted(method, way)
    passed = whole.host.passed  # type: ignore[attr-defined]
    middle = {(place, count // 2 + 1) for place, count in passed.items() if place[0] == (0 if method in JOINT else 1)}
    between = {(place, 1) for place in passed if place[1] in ("begin", "prepare")}
    in_pieces, pieces = finished_in_pieces(method, tmp_path, middle | between, **WAYS[way])
    assert pieces == len(middle | between) >= (5 if method in UNTRAINED else 6)
    assert differences(whole.state(), in_pieces.state()) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_state_that_was_taken_up_is_the_same_state(method: str) -> None:
    training = uninterrupted(method, "plain")
    fresh = start(method)
    fresh.load_state(copy.deepcopy(training.state()))
    assert differences(training.state(), fresh.state()) == []


def results_of(method: str, folder: Path) -> dict[str, Any]:
    """``results.json`` of a run by the command itself."""
    words = words_of(
        method,
        n_classes=4,
        n_tasks=2,
        train_per_class=16,
        n_epochs=2,
        classifier_part=0.5,
        seed=5,
        backbone=BACKBONE[method],
    )
    assert (
        main([*words, "--results_path", str(folder), "--run_name", "run", "--tensorboard", "0", "--progress", "0"]) == 0
    )
    results: dict[str, Any] = json.loads((folder / method / "seq-digits" / "run" / "results.json").read_text())
    return results


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_gives_one_record(method: str, tmp_path: Path) -> None:
    first, again = (results_of(method, tmp_path / name) for name in ("a", "b"))
    assert same_figures(first, again)
    assert (first["seed"], first["status"]) == (5, "finished")


@pytest.mark.parametrize("method", RESNET_METHODS)
def test_another_seed_gives_another_network(method: str) -> None:
    one, other = (finished(method, n_epochs=1, stop_after=1, seed=seed).model.net.state_dict() for seed in (0, 1))
    assert not any(torch.equal(one[name], other[name]) for name in one if one[name].dim() > 1)


# What moves.


def named(model: ContinualModel) -> dict[str, Tensor]:
    """A copy of every parameter and buffer of the method, whichever network it belongs to."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def frozen(model: ContinualModel) -> dict[str, Tensor]:
    """What is in no optimiser's reach: the tensors of every part that holds no parameter with a gradient, e.g. the teacher."""
    parts = [(name, part) for name, part in model.named_children() if name != "net"]
    held = [(name, part) for name, part in parts if not any(parameter.requires_grad for parameter in part.parameters())]
    return {f"{name}.{key}": value.clone() for name, part in held for key, value in part.state_dict().items()}


@pytest.mark.parametrize("method", RESNET_METHODS)
def test_everything_moves_in_the_first_task(method: str) -> None:
    training = start(method, n_epochs=1, first_task_part=1)
    model = begin(training, 0)
    before = named(model)
    for _ in epochs(training, 0):
        everything = {f"net.{name}" for name in model.net.state_dict()}
        assert {name for name in moved(before, named(model)) if name.startswith("net.")} == everything


@pytest.mark.parametrize("method", [method for method in ONE_BY_ONE if method in RESNET_METHODS])
def test_what_is_frozen_stays_while_a_task_is_trained(method: str) -> None:
    training = start(method)
    train_task(training, 0).end_task(training.shown)
    model = begin(training, 1)
    before = frozen(model)
    assert bool(before) == (method in REPLAYING)
    for _ in epochs(training, 1):
        assert moved(before, frozen(model)) == set()


def may_move(model: Any) -> set[str]:
    """Spec 3.9.3: which tensors each stage trains. BatchNorm's statistics move with the layers around them, or not at all."""
    net, stage, newest = model.net, model.stage.trains, f"net.head.tasks.{model.current_task}."
    every_head = stage == "classifier" or (stage == "all" and model.options.train_old_heads)
    heads = ("net.head.",) if every_head else (newest,)
    body = {"all": ("net.stem.", "net.blocks."), "last block and head": (f"net.blocks.{len(net.blocks) - 1}.",)}.get(
        stage, ()
    )
    rest = () if stage == "classifier" else ("projections.",)
    return {name for name in model.state_dict() if name.startswith((*heads, *body, *rest))}


@pytest.mark.parametrize(("method", "way"), [*REPLAY_CASES, *((method, "newest head") for method in REPLAYING)])
def test_each_stage_moves_its_own_parameters_and_no_others(method: str, way: str) -> None:
    """Weight decay and momentum are on, and the optimiser has seen the frozen layers before: neither may drag them along."""
    training = start(method, **WAYS.get(way, {"train_old_heads": 0}))
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    before, stages = named(model), []
    for _ in epochs(training, 1):
        after = named(model)
        stages.append(model.stage.trains)
        assert moved(before, after) == may_move(model), stages
        before = after
    assert stages[0] == ("head" if way == "unfreezing" else "all") and stages[-1] == "classifier"


@pytest.mark.parametrize("method", RESNET_METHODS)
def test_the_optimiser_has_the_rate_of_the_schedule(method: str) -> None:
    training = start(method, n_epochs=10, lr=0.5, lr_milestones="0.2,0.6", lr_gamma=0.1, first_task_part=1)
    model: Any = begin(training, 0)
    rates = []
    for epoch in range(model.n_epochs()):
        model.begin_epoch(epoch, training.shown)
        rates += [group["lr"] for group in model.opt.param_groups]
    assert rates == pytest.approx([0.5] * 2 + [0.05] * 4 + [0.005] * 4)


# Replay.


@functools.cache
def trained_twice(method: str) -> tuple[Training, list[Tensor], list[Tensor]]:
    """Task 0 as a whole and task 1 but for its end, with the labels seen in each epoch of task 1 and the class weights after each."""
    training = start(method)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    seen, weights = [], []
    for epoch in epochs(training, 1):
        batches = training.shown.train_batches(1, epoch, model.options.batch_size)
        drawn = [
            (labels, model.draw_replay(len(labels), epoch, step)[1]) for step, (_, labels, _) in enumerate(batches)
        ]
        seen.append(torch.cat([part for pair in drawn for part in pair]))
        weights.append(model.class_weights)
    return training, seen, [*weights[1:], model.class_weights]


@pytest.mark.parametrize("method", REPLAYING)
def test_synthetic_samples_carry_the_teachers_logits(method: str) -> None:
    model: Any = trained_twice(method)[0].model
    images, labels, logits = model.draw_replay(32, 0, 0)
    assert images.shape == (32, 3, 16, 16) and images.dtype == torch.float32 and not images.requires_grad
    assert logits.shape == (32, model.n_past_classes) and set(labels.tolist()) <= set(range(model.n_past_classes))
    torch.testing.assert_close(logits, model.teacher(images).detach(), rtol=1e-4, atol=1e-5)
    same, other = model.draw_replay(32, 0, 0)[0], model.draw_replay(32, 0, 1)[0]
    assert torch.equal(images, same) and not torch.equal(images, other)


@pytest.mark.parametrize("method", REPLAYING)
def test_class_weights_come_from_the_whole_task(method: str) -> None:
    """Trap 18: the counts of all samples since the task's first epoch, refreshed at each epoch's end; not those of a batch or an epoch."""
    training, seen, weights = trained_twice(method)
    counts = np.zeros(training.model.n_seen_classes)
    for labels, weight in zip(seen, weights, strict=True):
        counts += np.bincount(labels.numpy(), minlength=len(counts))
        inverse = counts.sum() / np.maximum(counts, 1)
        np.testing.assert_allclose(weight.numpy(), inverse / inverse.min(), rtol=1e-6)


# With 3 new and 6 old classes a = log2(3/2 + 1) = 1.321928 and b = sqrt(6/3) = 1.414214.
PLASTIC, STABLE = 1.242013, 1.869490  # (1 + 1/a) / b of the cross-entropies, a b of the distillations
THIRD = {"n_classes": 9, "n_tasks": 3, "train_per_class": 8, "n_epochs": 2, "classifier_part": 0.5}
LAMBDAS = {"lambda_ce": 0.6, "lambda_hkd": 0.3, "lambda_rkd": 0.4, "lambda_ft": 0.7}


def in_the_third_task(method: str, **flags: Any) -> tuple[Training, Any]:
    """Two tasks of three classes are learned; the third stands in its first epoch, and the network apart from its teacher."""
    training = start(method, **{**THIRD, **LAMBDAS, **flags})
    for task in (0, 1):
        train_task(training, task).end_task(training.shown)
    model: Any = begin(training, 2)
    with torch.no_grad(), global_seed(0, "apart"):
        for parameter in model.net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.begin_epoch(0, training.shown)
    model.set_modes()
    return training, model


@pytest.mark.parametrize(("way", "hkd_scale"), [("plain", 1.0), ("unfreezing", 0.01)])
@pytest.mark.parametrize("method", REPLAYING)
def test_a_step_minimises_equation_23_as_a_sum(method: str, way: str, hkd_scale: float) -> None:
    """In the released code's first stage, that of the new head, HKD has a hundredth of its weight."""
    training, model = in_the_third_task(method, **WAYS[way])
    inputs, labels, raw = next(training.shown.train_batches(2, 0, 16))
    images, old_labels, teacher_logits = model.draw_replay(16, 0, 0)
    net, first, second = copy.deepcopy(model.net), *map(copy.deepcopy, model.projections)
    (new, features), (old, old_features) = (
        net(inputs, returnt="both"),
        net(images, returnt="both"),
    )  # real first, synthetic last
    both = net.head(torch.cat([features, old_features]))
    expected = {
        "ce": 0.6 * PLASTIC * local_cross_entropy(new, labels, 6),
        "hkd": 0.3 * STABLE * hkd_scale * hard_distillation(old, teacher_logits),
        "rkd": 0.4
        * STABLE
        * relational_distillation(first(features), second(model.teacher(inputs, returnt="features"))),
        "ft": 0.7 * PLASTIC * torch.nn.functional.cross_entropy(both, torch.cat([labels, old_labels])),
    }
    found = model.observe(inputs, labels, raw, epoch=0, step=0)
    assert found.keys() == {"loss", *expected}
    for name, value in expected.items():
        assert float(value.detach()) > 1e-4
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(found["loss"], sum(found[name] for name in expected))
    statistics = {name: value for name, value in net.state_dict().items() if "running" in name}
    torch.testing.assert_close({name: model.net.state_dict()[name] for name in statistics}, statistics)


@pytest.mark.parametrize("method", REPLAYING)
def test_the_classifiers_stage_minimises_balanced_cross_entropy_and_distillation(method: str) -> None:
    """Spec 3.9.3: CE over all classes on real and synthetic images, weighted by class and by the plain lambda; HKD, scaled by the numbers
    of classes, on the synthetic images alone; no RKD."""
    training, model = in_the_third_task(method)
    model.begin_epoch(model.n_epochs() - 1, training.shown)
    model.set_modes()
    assert model.stage.trains == "classifier"
    model.class_weights = weights = torch.linspace(1, 5, 9)
    inputs, labels, raw = next(training.shown.train_batches(2, 1, 16))
    images, old_labels, teacher_logits = model.draw_replay(16, 1, 0)
    net = copy.deepcopy(model.net).eval()
    with torch.no_grad():
        log_probabilities = net(torch.cat([inputs, images])).log_softmax(1)
        seen = torch.cat([labels, old_labels])
        picked = -log_probabilities[range(len(seen)), seen]
        expected = {
            "ce": 0.6 * (weights[seen] * picked).sum() / weights[seen].sum(),
            "hkd": 0.3 * STABLE * (net(images)[:, :6] - teacher_logits).abs().mean(),
        }
    found = model.observe(inputs, labels, raw, epoch=1, step=0)
    assert found.keys() == {"loss", *expected}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(found["loss"], found["ce"] + found["hkd"])


@pytest.mark.parametrize("method", REPLAYING)
def test_the_classifiers_loss_on_detached_features_moves_the_classifier_alone(method: str) -> None:
    training = start(method, lambda_ce=0, lambda_hkd=0, lambda_rkd=0, lambda_ft=1, optim_wd=0, n_epochs=1)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    before = {name: value.clone() for name, value in model.net.named_parameters()}
    for _ in epochs(training, 1):
        assert model.stage.trains == "all"
    changed = {name for name, value in model.net.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"head.tasks.0.weight", "head.tasks.1.weight"}


@pytest.mark.parametrize("method", [method for method in REPLAYING if "replay_augment" in options_of(method)])
def test_the_teacher_looks_at_what_the_student_sees(method: str) -> None:
    training = start(method, replay_augment=1)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    plain, cropped = model.draw_replay(16, 0, 0)[0], model._replay(16, 0, 0)
    assert not torch.equal(plain, cropped[0])
    torch.testing.assert_close(cropped[2], model.teacher(cropped[0]).detach())


# What is kept of the data.


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_no_image_of_a_past_task_has_any_influence(method: str) -> None:
    """Each task's training images are overwritten when it ends: the run must not notice."""

    def forget() -> None:
        done = training.position.task - 1
        training.dataset.train.images[training.dataset.train_indices(done)] = 77

    training = start(method, after_task=forget)
    training.run()
    assert training.dataset.train.images.unique().tolist() == [77]
    assert differences(uninterrupted(method, "plain").state(), training.state()) == []


def images_within(state: Any, images: list[bytes]) -> int:
    """How many of the images, each given by some of its bytes, are found in any tensor that can be reached from the state."""
    held = [tensor.detach().cpu() for tensor in tensors_in(state)]
    layouts = [tensor.contiguous() for tensor in held] + [
        tensor.permute(0, 2, 3, 1).contiguous() for tensor in held if tensor.dim() == 4
    ]
    memory = [tensor.numpy().tobytes() for tensor in layouts if tensor.dtype != torch.bfloat16]
    return sum(any(image in block for block in memory) for image in images)


def looks_of(training: Training, task: int) -> list[bytes]:
    """The training images of a task as a state might hold them: pixels or normalised, one plane or one row of pixels."""
    dataset = training.dataset
    pixels = dataset.train.images[dataset.train_indices(task)]
    floats = dataset.normalise(pixels)
    planes = [image[0, 3:13].contiguous() for images in (pixels, floats) for image in images]
    rows = [image[:, 8].T.contiguous() for images in (pixels, floats) for image in images]
    return [part.numpy().tobytes() for part in (*planes, *rows)]


@pytest.mark.parametrize("method", ONE_BY_ONE)
def test_no_real_image_is_kept(method: str) -> None:
    training = uninterrupted(method, "plain")
    looks = [look for task in range(3) for look in looks_of(training, task)]
    assert images_within(training.state(), looks) == images_within(training.model, looks) == 0
    if method in REPLAYING:  # in the midst of a task, with its synthetic samples at hand
        assert images_within(trained_twice(method)[0].model, looks) == 0
    normalised = training.dataset.normalise(training.dataset.train.images[:5])
    task = int(training.dataset.train.labels[0]) // 2
    stolen = {"state": training.state(), "hidden": [{"deep": normalised}]}
    assert images_within(stolen, looks_of(training, task)) > 0  # the search would have found one


def by_hand(training: Training, images: Tensor) -> np.ndarray:
    """Features by the network's own layers, in evaluation mode, one image at a time."""
    net = copy.deepcopy(training.model.net).eval()
    with torch.no_grad():
        return torch.cat([net.features(image[None]) for image in images]).double().numpy()


def test_pmi_keeps_the_gaussians_of_real_new_and_synthetic_old_features() -> None:
    training = start("pmi_rdfcil")
    train_task(training, 0).end_task(training.shown)
    model: Any = train_task(training, 1)
    buffer, dataset = model.buffer, training.dataset
    real = dataset.normalise(dataset.train.images[dataset.train_indices(1)])
    real_labels = dataset.train.labels[dataset.train_indices(1)]
    features = by_hand(training, torch.cat([real, buffer.images]))
    labels = torch.cat([real_labels, buffer.labels]).numpy()
    model.end_task(training.shown)
    assert len(model.gaussians) == 4 and model.buffer is None
    for label in range(4):
        own = features[labels == label]
        np.testing.assert_allclose(model.gaussians.mean[label], own.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.gaussians.std[label], own.std(0), rtol=1e-3, atol=1e-5)


def test_pmi_pools_the_moments_of_all_tasks_exactly() -> None:
    training = start("pmi_rdfcil")
    inputs: list[list[Tensor]] = []  # of each piece, a batch a task
    for task in range(3):
        model: Any = train_task(training, task)
        dataset, net = training.dataset, copy.deepcopy(model.net).eval()
        value = dataset.normalise(dataset.train.images[dataset.train_indices(task)])
        for number, piece in enumerate(net.pieces()):
            if task == 0:
                inputs.append([])
            inputs[number].append(value)
            with torch.no_grad():
                value = piece(value)
        model.end_task(training.shown)
        for moments, batches in zip(model.moments, inputs, strict=True):
            mean, var = numpy_moments(batches)
            np.testing.assert_allclose(moments.mean, mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(moments.var, var, rtol=1e-4, atol=1e-5)


def test_pmi_without_cfs_samples_the_plain_gaussians() -> None:
    training = start("pmi_rdfcil", cfs=0)
    model: Any = train_task(training, 0)
    model.end_task(training.shown)
    assert model.bank is None
    begin(training, 1)
    labels = model.sample_labels()
    targets, _ = model.sample_targets(labels)
    assert targets.shape == (24, 64) and set(labels.tolist()) == {0, 1}
    distance = (targets - model.gaussians.mean[labels]) / model.gaussians.std[labels].clamp_min(1e-6)
    assert 0.8 < float(distance[distance.abs() > 0].std()) < 1.2


def test_pmi_counts_its_inversions_over_the_run() -> None:
    bill = uninterrupted("pmi_rdfcil", "plain").model.inversion_figures()
    steps = (
        2 * 2 * (5 * 2 + 3)
    )  # two tasks, two batches, two steps for each of five pieces and three of the whole network
    assert (bill["images"], bill["steps"], bill["forward_passes"], bill["backward_passes"]) == (48, steps, steps, steps)
    assert bill["step_equivalents"] == pytest.approx(
        2 * (2 + 3)
    )  # a sweep over the pieces costs what a full step costs


def test_pmi_refuses_a_buffer_that_is_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "--model",
        "pmi_rdfcil",
        "--dataset",
        "seq-digits",
        "--buffer_images",
        "19",
        "--results_path",
        str(tmp_path / "runs"),
    ]
    assert main(argv) == 2
    assert (
        capsys.readouterr().err == "pmi-cl: error: --buffer_images 19: give at least 20, two for each of 10 classes\n"
    )
    assert not (tmp_path / "runs").exists()


def test_pmi_refuses_to_match_statistics_that_the_network_does_not_keep() -> None:
    for alpha in (0.1, 0):
        training = start("pmi_rdfcil", inv_alpha=alpha)
        for norm in (m for m in training.model.net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean = norm.running_var = None
        with (
            pytest.raises(UserError, match=r"^--inv_alpha 0\.1 weighs .*give --inv_alpha 0 or")
            if alpha
            else nullcontext()
        ):
            training.model.check_data(training.dataset)


def test_rdfcil_counts_the_steps_of_all_its_generators() -> None:
    bill = uninterrupted("rdfcil", "plain").model.inversion_figures()
    assert bill["steps"] == bill["step_equivalents"] == 2 * 5 and bill.get("images", 0) == 0


@pytest.mark.parametrize("method", METHODS)
def test_what_comes_before_and_after_a_tasks_epochs_leaves_every_mode_as_it_was(method: str) -> None:
    training = start(method)
    if training.model.JOINT:
        return
    model: Any = train_task(training, 0)
    modes = [(part, part.training) for part in model.modules()]
    model.end_task(training.shown)
    assert [part.training for part, _ in modes] == [mode for _, mode in modes]
    begin(training, 1)
    assert [part.training for part, _ in modes] == [mode for _, mode in modes]


def test_rdfcil_samples_its_generator_in_evaluation_mode() -> None:
    """Trap 28: fresh images at every step, which neither move the running statistics nor depend on the rest of the batch."""
    model: Any = trained_twice("rdfcil")[0].model
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    noise = torch.randn(6, 1000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), in_evaluation_mode([model.generator]):
        torch.testing.assert_close(model.generator(noise)[:2], model.generator(noise[:2]), rtol=1e-4, atol=1e-5)
    images, labels, logits = model.draw_replay(16, 3, 1)
    assert differences(before, model.generator.state_dict()) == []
    assert torch.equal(labels, logits.argmax(1))
    assert not torch.equal(images, model.draw_replay(16, 3, 2)[0])
