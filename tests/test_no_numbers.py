"""Test that a network whose logits are not finite gets no accuracy.

``argmax`` takes NaN for the highest logit, so that every image would count as class 0.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pmi_cl.errors import UserError
from pmi_cl.models.host import NullHost
from pmi_cl.utils.run import training as training_module
from pmi_cl.utils.run.evaluation import before_training, evaluate
from pmi_cl.utils.run.training import DivergedTraining, Training
from tests.support.command_runs import quick, results_in
from tests.support.small_runs import CLIP_METHODS, METHODS, start


def spoilt(method: str, value: float) -> Training:
    """Return a run that has begun, with one number in its last layer that is not finite."""
    training = start(method)
    model = training.model
    model.grow()
    if method in CLIP_METHODS:
        model.extend_learned()
    by_texts = model.NAMES_UNSEEN  # else there is a head
    last = model.net.text_tower if by_texts else (model.learned["head"] if method in CLIP_METHODS else model.net.head)
    with torch.no_grad():
        list(last.parameters())[-1].view(-1)[0] = value
    return training


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", METHODS)
def test_no_method_gets_an_accuracy_from_logits_that_are_not_finite(method: str, value: float) -> None:
    training = spoilt(method, value)
    with pytest.raises(UserError) as caught:
        evaluate(training.model, training.dataset, 1)
    said = "the network gives no numbers after task 1"
    if method == "zsclip":
        assert str(caught.value) == f"{said}, and nothing has trained it: give it other weights"
    else:
        assert str(caught.value) == f"{said}: lower --lr (it is {training.args.lr})"


@pytest.mark.parametrize("method", ["zsclip", "pmi_moe"])
def test_unseen_tasks_are_not_evaluated_without_numbers(method: str) -> None:
    training = spoilt(method, torch.nan)
    with pytest.raises(UserError, match="no numbers before task 1, and nothing has trained it"):
        before_training(training.model, training.dataset)
    with pytest.raises(UserError, match="no numbers after task 2"):
        evaluate(training.model, training.dataset, 2, every_task=3)


def test_a_rate_that_ruins_the_network_ends_the_run_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = quick("joint", tmp_path, "run", lr=1e20, train_per_class=4)
    out, err = capsys.readouterr()
    assert code == 2 and "A_" not in out
    assert err == "pmi-cl: error: the network gives no numbers after task 2: lower --lr (it is 1e+20)\n"
    results = results_in(folder)
    assert results["status"] == "failed" and results["class_il"]["matrix"] == []


def test_a_loss_is_looked_at_within_a_long_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is reported every few seconds, and the loss is looked at then."""
    monkeypatch.setattr(training_module, "PACE_SECONDS", 0.0)
    training = start("sgd", NullHost(), lr=1e30, n_epochs=3)
    with pytest.raises(DivergedTraining, match="in epoch 1 of task 1: try a smaller --lr"):
        training.run()
    assert training.position.step < training.model.steps_per_epoch()
