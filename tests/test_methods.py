"""Test what holds for every method.

It learns, goes on from a checkpoint anywhere, and follows its seed.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pmi_cl.cli import main
from tests.support.method_runs import CASES, JOINT, REPLAYING, UNTRAINED, WAYS, long_run, uninterrupted
from tests.support.run_figures import same_figures
from tests.support.small_runs import (
    BACKBONE,
    CLIP_METHODS,
    METHODS,
    RESNET_METHODS,
    begin,
    differences,
    finished,
    finished_in_pieces,
    start,
    train_task,
    words_of,
)


def test_the_registry_has_the_methods_of_the_project() -> None:
    assert {"joint", "pmi_rdfcil", "rdfcil", "sgd"} <= set(RESNET_METHODS)
    assert {"coda_prompt", "moe_adapters", "vpt", "zsclip"} <= set(CLIP_METHODS)
    assert {"pmi_rdfcil", "rdfcil"} <= set(REPLAYING)


@pytest.mark.parametrize("method", METHODS)
def test_stop_after_leaves_the_rest_of_the_tasks_out(method: str) -> None:
    """This holds for joint training, too: its bound is that of the tasks that the others have
    learned.
    """
    training = finished(method, stop_after=2)
    assert [len(row) for row in training.class_il] == ([2] if method in JOINT else [1, 2])
    if method in JOINT:
        assert sum(training.model.net.head.sizes) == 4  # no logits for the classes of the third task


@pytest.mark.parametrize("method", RESNET_METHODS)
def test_learns_its_first_task(method: str) -> None:
    # Joint: four classes in as many epochs.
    assert np.mean(long_run(method).class_il[0]) > (50 if method in JOINT else 90)


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
    """It is stopped between the tasks and in the middle of every epoch and phase of one.

    Each piece is run by new objects that know a file alone.
    """
    whole = uninterrupted(method, way)
    passed = whole.host.passed  # type: ignore[attr-defined]
    middle = {(place, count // 2 + 1) for place, count in passed.items() if place[0] == (0 if method in JOINT else 1)}
    between = {(place, 1) for place in passed if place[1] in ("begin", "prepare")}
    in_pieces, pieces = finished_in_pieces(method, tmp_path, middle | between, **WAYS[way])
    assert pieces == len(middle | between) >= (5 if method in UNTRAINED else 6)
    assert differences(whole.state(), in_pieces.state()) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_restored_state_is_the_same_state(method: str) -> None:
    training = uninterrupted(method, "plain")
    fresh = start(method)
    fresh.load_state(copy.deepcopy(training.state()))
    assert differences(training.state(), fresh.state()) == []


def results_of(method: str, folder: Path) -> dict[str, Any]:
    """Return ``results.json`` of a run by the command itself."""
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
