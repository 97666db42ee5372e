"""PMI on a CLIP: the losses of a step, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pmi_cl.seeding import seeded
from tests.support.clip_runs import PMI, before_second_task
from tests.support.slow_references import clip_losses
from tests.support.small_runs import start, train_task

THIRD = {"n_classes": 9, "n_tasks": 3, "train_per_class": 8, "n_epochs": 1, "warmup_steps": 0}
LAMBDAS = {"lambda_ce": 0.7, "lambda_hkd": 0.3, "lambda_tkd": 0.2, "lambda_tft": 0.05}


@pytest.mark.parametrize(("task_factors", "plastic", "stable"), [(1, 1.242013, 1.869490), (0, 1.0, 1.0)])
@pytest.mark.parametrize("method", PMI)
def test_a_step_minimises_the_losses_of_the_paper(
    method: str, task_factors: int, plastic: float, stable: float
) -> None:
    """With 3 new and 6 old classes a = log2(3/2 + 1) = 1.321928 and b = sqrt(6/3) = 1.414214.

    CE is scaled by (1 + 1/a) / b, the distillations by a b, the texts' cross-entropy not at all.
    """
    training = start(method, task_factors=task_factors, **THIRD, **LAMBDAS)
    for task in (0, 1):
        train_task(training, task).end_task(training.shown)
    model: Any = train_task(training, 2).eval()  # in training the gate of a mixture is noisy
    inputs, labels, _ = next(training.shown.train_batches(2, 0, 16))
    found = model.losses(inputs, labels, 0, 0)
    maps, *old = model.replay.buffer.draw(8, seeded(model.args.seed, "draw", 2, 0, 0))
    weights = {"ce": 0.7 * plastic, "hkd": 0.3 * stable}
    if method == "pmi_moe":
        weights |= {"tkd": 0.2 * stable, "tft": 0.05}
    features = model.image_features(inputs), model.features_of_maps(maps)
    expected = clip_losses(model, (features[0], labels), (features[1], *old), 6, weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(value.detach()) > 1e-5, name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-8, msg=name)


@pytest.mark.parametrize(
    ("loss", "moved"), [("hkd", {"image", "text"}), ("tkd", {"text"}), ("tft", {"text"}), ("ce", {"image", "text"})]
)
def test_each_loss_moves_its_towers(loss: str, moved: set[str]) -> None:
    training, _ = before_second_task("pmi_moe")
    model: Any = train_task(training, 1)
    inputs, labels, _ = next(training.shown.train_batches(1, 0, 16))
    found = set()
    for tower in ("image", "text"):
        value = model.losses(inputs, labels, 0, 0)[loss]
        grads = torch.autograd.grad(value, list(model.learned[tower].parameters()), allow_unused=True)
        found |= {tower} if any(grad is not None and bool(grad.abs().sum()) for grad in grads) else set()
    assert found == moved and not model.replay.old_text.requires_grad
