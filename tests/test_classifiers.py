"""Test classification by class statistics against scipy, and by each classifier of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import pmi_cl
from pmi_cl.cli import main
from pmi_cl.inversion.networks.pieces import in_evaluation_mode
from pmi_cl.models.training.class_scores import mahalanobis_scores, nearest_mean_scores
from pmi_cl.utils.reports.comparison_tables import cells
from tests.support.command_runs import quick, results_in
from tests.support.method_runs import kind_of, uninterrupted
from tests.support.run_records import in_results, record, rows_below
from tests.support.small_runs import METHODS, words_of

WITH_STATISTICS = [method for method in METHODS if kind_of(method).KEEPS_STATISTICS]


def draws(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_nearest_mean_scores_are_scipys_distances() -> None:
    features, means = draws(7, 5), 3 * draws(4, 5)
    expected = -cdist(features.numpy(), means.numpy(), "sqeuclidean")
    np.testing.assert_allclose(nearest_mean_scores(features, means).numpy(), expected, rtol=1e-5)


def test_mahalanobis_scores_are_scipys_distances() -> None:
    features, means, deviations = draws(7, 5), 3 * draws(4, 5), draws(4, 5).abs() + 0.3
    inverse = np.diag(1 / (deviations.double().numpy() ** 2).mean(0))
    expected = -(cdist(features.numpy(), means.numpy(), "mahalanobis", VI=inverse) ** 2)
    np.testing.assert_allclose(mahalanobis_scores(features, means, deviations).numpy(), expected, rtol=1e-4)


def test_a_feature_that_never_varies_gives_no_infinite_score() -> None:
    for deviations in (torch.tensor([[0.0, 1.0], [0.0, 2.0]]), torch.zeros(2, 2)):
        assert mahalanobis_scores(draws(3, 2), draws(2, 2), deviations).isfinite().all()


def test_the_methods_with_statistics() -> None:
    assert {"pmi_rdfcil", "pmi_vpt", "pmi_codap", "pmi_moe"} <= set(WITH_STATISTICS)
    assert not {"sgd", "joint", "rdfcil", "zsclip"} & set(WITH_STATISTICS)


@pytest.mark.parametrize("method", WITH_STATISTICS)
def test_a_run_evaluates_every_classifier(method: str) -> None:
    """Each accuracy is counted again from the features, the means and the deviations."""
    training: Any = uninterrupted(method, "plain")
    model, dataset = training.model, training.dataset
    gaussians = getattr(model, "replay", model).gaussians
    with torch.no_grad():
        features = model.eval().logits_and_features(dataset.normalise(dataset.test.images))[1].double().numpy()
    variance = (gaussians.std.double().numpy() ** 2).mean(0)
    scores = {
        "ncm": cdist(features, gaussians.mean.numpy(), "sqeuclidean"),
        "mahalanobis": cdist(features / variance**0.5, gaussians.mean.numpy() / variance**0.5, "sqeuclidean"),
    }
    for name, distances in scores.items():
        right = distances.argmin(1) == dataset.test.labels.numpy()
        found = training.figures.classifiers[-1][name]
        expected = [100 * right[dataset.test_indices(task).numpy()].mean() for task in range(3)]
        assert found["class_il"] == pytest.approx(expected, abs=0.5) and len(found) == 2
    figures = training.figures.by_classifier("head", {"last": 1.0})
    assert list(figures) == ["head", "ncm", "mahalanobis"] and len(figures["ncm"]["matrix"]) == 3


@pytest.mark.parametrize("method", METHODS)
def test_what_is_evaluated_is_what_forward_gives(method: str) -> None:
    training = uninterrupted(method, "plain")
    model, images = training.model, training.dataset.normalise(training.dataset.test.images[:4])
    with torch.no_grad(), in_evaluation_mode([model]):
        assert torch.equal(model.scores(images)[model.classified_by], model(images))


@pytest.mark.parametrize("method", ["pmi_rdfcil", "pmi_vpt"])
def test_the_chosen_classifier_makes_the_headline_and_the_predictions(method: str, tmp_path: Path) -> None:
    usual, chosen = (quick(method, tmp_path, name, classifier=name)[1] for name in ("head", "ncm"))
    by_head, by_ncm = results_in(usual), results_in(chosen)
    assert by_ncm["class_il"] == by_ncm["classifiers"]["ncm"] == by_head["classifiers"]["ncm"]
    assert by_ncm["classifiers"]["head"] == by_head["class_il"]
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert (pmi_cl.load(chosen).logits(images) <= 0).all() and not (pmi_cl.load(usual).logits(images) <= 0).all()
    assert main(["evaluate", str(chosen), "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["last"] == by_ncm["class_il"]["last"]


def test_a_classifier_without_its_statistics_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words_of("sgd"), "--classifier", "mahalanobis", "--check"]) == 2
    line = capsys.readouterr().err
    assert "--classifier mahalanobis: sgd keeps no statistics of its classes" in line and "pmi_rdfcil" in line
    words = [*words_of("pmi_vpt"), "--backbone", "clip-tiny", "--classifier", "ncm", "--check"]
    for flag in ("--synthetic_last_task", "--evaluate_unseen"):
        assert main([*words, flag, "1"]) == 2
        assert f"with {flag} 1 there are classes without statistics" in capsys.readouterr().err


def test_compare_has_a_column_for_each_classifier(tmp_path: Path) -> None:
    record(tmp_path / "a", 0, 50.0, model="pmi_rdfcil")
    in_results(tmp_path / "a", classifiers={"head": {"last": 50.0}, "ncm": {"last": 61.0}})
    record(tmp_path / "b", 0, 40.0)
    titles, *lines = cells(rows_below(tmp_path))
    assert "last by mahalanobis, %" not in titles
    shown = {line[0]: [line[titles.index(f"last by {name}, %")] for name in ("head", "ncm")] for line in lines}
    assert shown == {"pmi_rdfcil": ["50.00", "61.00"], "sgd": ["", ""]}
