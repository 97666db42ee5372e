"""Test the controls of ``--replay``: real images, noise, and labels of other classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.models.resnet.replay_controls import exchanged_classes
from pmi_cl.seeding import seeded
from tests.support.method_runs import CONTROLLED, uninterrupted
from tests.support.small_runs import begin, differences, finished, finished_in_pieces, start, train_task, words_of

BOTH = [method for method in CONTROLLED if method in ("rdfcil", "pmi_rdfcil")]
QUICK = {"n_epochs": 2, "classifier_part": 0.5}


@pytest.mark.parametrize("n", [2, 3, 7])
def test_every_class_gets_another_one(n: int) -> None:
    for seed in range(20):
        others = exchanged_classes(n, seeded(seed)).tolist()
        assert sorted(others) == list(range(n)) and all(other != own for own, other in enumerate(others))
    assert len({tuple(exchanged_classes(7, seeded(seed)).tolist()) for seed in range(20)}) > 15


def test_a_single_class_keeps_its_label() -> None:
    assert exchanged_classes(1, seeded(0)).tolist() == [0]


@pytest.mark.parametrize("method", CONTROLLED)
def test_real_images_of_the_old_classes_stand_in_for_synthetic_ones(method: str) -> None:
    training = start(method, replay="real", replay_images=12, **QUICK)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    dataset = training.dataset
    assert model.replay_samples() == 0
    assert model.stored()["real images"] == 12 * (3 * 16 * 16 + 8)
    images, labels, logits = model.control.draw(10, 0, 0)
    assert labels.bincount().tolist() == [5, 5] and not model.inversion_figures().get("steps")
    real, names = dataset.normalise(dataset.train.images), dataset.train.labels
    for image, label in zip(images, labels, strict=True):
        same = (real == image).flatten(1).all(1)
        assert names[same].unique().tolist() == [int(label)]
    with torch.no_grad():
        torch.testing.assert_close(logits, model.teacher(images))
    train_task(training, 1).end_task(training.shown)
    assert model.control.memory.labels.bincount().tolist() == [3, 3, 3, 3]  # 12 images of four classes


@pytest.mark.parametrize("method", BOTH)
def test_as_many_as_the_method_would_make(method: str) -> None:
    model: Any = start(method, replay="real").model
    expected = {"rdfcil": [20_000] * 3, "pmi_rdfcil": [24] * 3}[method]
    assert [model.images_for(task) for task in range(3)] == expected


@pytest.mark.parametrize("method", CONTROLLED)
def test_noise_has_the_moments_of_the_data(method: str) -> None:
    training = start(method, replay="noise", replay_images=1000, **QUICK)
    train_task(training, 0).end_task(training.shown)
    model: Any = begin(training, 1)
    images, labels, _ = model.control.samples.draw(1000, seeded(0))
    assert images.mean().abs() < 0.01 and (images.std() - 1).abs() < 0.01
    assert labels.bincount().tolist() == [500, 500]
    assert model.stored()["real images"] == 0


def test_shuffled_labels_are_those_of_other_classes_and_the_images_stay() -> None:
    """The statistics of the old classes are then those of the exchanged images, too."""
    usual, shuffled = (start("pmi_rdfcil", replay=replay, **QUICK) for replay in ("synthetic", "shuffled"))
    for training in (usual, shuffled):
        train_task(training, 0).end_task(training.shown)
        begin(training, 1)
    own, model = usual.model, shuffled.model
    assert torch.equal(own.buffer.images, model.buffer.images)  # type: ignore[attr-defined,union-attr]
    (images, labels, logits), (others, exchanged, same) = (each._replay(10, 0, 0) for each in (own, model))  # type: ignore[operator]
    assert torch.equal(images, others) and torch.equal(logits, same)
    assert (exchanged == 1 - labels).all()
    features = model._features(shuffled.shown)[1][-24:]  # type: ignore[operator]
    assert torch.equal(features, 1 - own._features(usual.shown)[1][-24:])  # type: ignore[operator]


@pytest.mark.parametrize(("method", "replay"), [("rdfcil", "real"), ("pmi_rdfcil", "noise"), ("rdfcil", "shuffled")])
def test_a_control_goes_on_bit_for_bit(method: str, replay: str, tmp_path: Path) -> None:
    flags = {"replay": replay, "replay_images": 12, **QUICK}
    stops = {((1, "train", 0), 2), ((1, "end", 0), 1), ((2, "begin", 0), 1)}
    whole = finished(method, **flags)
    in_pieces, pieces = finished_in_pieces(method, tmp_path, stops, **flags)
    assert pieces >= 1 and differences(whole.state(), in_pieces.state()) == []


def test_the_default_is_the_method_itself() -> None:
    for method in BOTH:
        model: Any = uninterrupted(method, "plain").model
        assert model.control.memory is None and "exemplars" not in model.state()
        assert "real images" not in uninterrupted(method, "plain").figures.after_task[-1]  # type: ignore[operator]


def test_what_cannot_be_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words_of("rdfcil", replay="real", replay_images=5), "--check"]) == 2
    assert "--replay_images 5: give at least 12, two for each of 6 classes" in capsys.readouterr().err
    assert main([*words_of("rdfcil", replay="real", data_free=1), "--check"]) == 2
    assert "--data_free 1: --replay real stores real images" in capsys.readouterr().err
    model: Any = start("rdfcil", replay="real").model
    with pytest.raises(ValueError, match="no stored images"):
        model.current_task = 1
        model.control.load_state({"exemplars": None})
