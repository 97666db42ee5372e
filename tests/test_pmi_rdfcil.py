"""Test what pmi_rdfcil and rdfcil keep of a task, count and refuse."""

from __future__ import annotations

import copy
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
from tests.support.method_runs import by_hand, trained_twice, uninterrupted
from tests.support.slow_references import numpy_moments
from tests.support.small_runs import begin, differences, start, train_task


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
    targets = model.sample_targets(labels)
    assert targets.shape == (24, 64) and set(labels.tolist()) == {0, 1}
    distance = (targets - model.gaussians.mean[labels]) / model.gaussians.std[labels].clamp_min(1e-6)
    assert 0.8 < float(distance[distance.abs() > 0].std()) < 1.2


def test_pmi_counts_its_inversions_over_the_run() -> None:
    figures = uninterrupted("pmi_rdfcil", "plain").model.inversion_figures()
    # Two tasks, two batches, two steps for each of five pieces and three of the whole
    # network.
    steps = 2 * 2 * (5 * 2 + 3)
    assert figures["images"] == 48
    assert figures["steps"] == figures["forward_passes"] == figures["backward_passes"] == steps
    # A sweep over the pieces costs what a full step costs.
    assert figures["step_equivalents"] == pytest.approx(2 * (2 + 3))


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
    figures = uninterrupted("rdfcil", "plain").model.inversion_figures()
    assert figures["steps"] == figures["step_equivalents"] == 2 * 5 and figures.get("images", 0) == 0


def test_rdfcil_samples_its_generator_in_evaluation_mode() -> None:
    """Images are fresh at every step.

    They neither move the running statistics nor depend on the rest of the batch.
    """
    model: Any = trained_twice("rdfcil")[0].model
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    noise = torch.randn(6, model.generator.NOISE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), in_evaluation_mode([model.generator]):
        torch.testing.assert_close(model.generator(noise)[:2], model.generator(noise[:2]), rtol=1e-4, atol=1e-5)
    images, labels, logits = model.draw_replay(16, 3, 1)
    assert differences(before, model.generator.state_dict()) == []
    assert torch.equal(labels, logits.argmax(1))
    assert not torch.equal(images, model.draw_replay(16, 3, 2)[0])
