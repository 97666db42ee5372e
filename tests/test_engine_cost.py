"""Steps, passes and costs of an inversion, and how it tells its progress."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from pmi_cl.backbones.resnet_cifar import resnet20
from pmi_cl.inversion.networks.frozen import FrozenNetwork
from pmi_cl.inversion.networks.operations import input_shapes, layer_costs
from tests.support.small_inversions import EVERYTHING, SHAPE, finished, inversion


def test_steps_and_passes_are_counted() -> None:
    """10 samples in batches of 4 are three batches of 3, 3 and 4."""
    whole = finished(replace(EVERYTHING, start="pmi"))
    assert [len(images) for images in whole.finished] == [3, 3, 4]
    report = whole.report
    assert report.images == 10 and report.seconds > 0
    assert report.steps == report.forward_passes == report.backward_passes == whole.total_steps == 3 * (3 * 3 + 5)
    assert [len(entry["losses"]) for entry in report.losses] == [3, 3, 3, 5] * 3
    assert report.seconds_per_image == pytest.approx(report.seconds / 10)
    assert report.summary()["steps"] == report.steps and "losses" not in report.summary()


@pytest.mark.parametrize("batch", [4, 10])
def test_a_sweep_over_all_layers_costs_one_full_step(batch: int) -> None:
    """This holds whatever the batches: the work is averaged over the images."""
    whole = finished(replace(EVERYTHING, start="pmi", batch=batch))
    assert whole.report.step_equivalents == pytest.approx(3 * 1.0 + 5)
    assert finished(replace(EVERYTHING, start="noise", batch=batch)).report.step_equivalents == pytest.approx(5)


def test_a_stem_step_costs_what_the_stem_does() -> None:
    whole = finished(replace(EVERYTHING, start="stem", batch=10))
    assert whole.report.step_equivalents == pytest.approx(2 * whole.plan.costs[0] + 5)
    assert whole.plan.costs[0] < 0.3


def test_layer_costs_are_those_of_the_convolutions() -> None:
    network = resnet20()
    network.head.grow(2)
    frozen = FrozenNetwork(network.pieces(), network.head)
    costs = layer_costs(frozen, input_shapes(frozen, torch.zeros(2, 3, 32, 32)))
    by_hand = [3 * 16 * 32**2, *[2 * 16 * 16 * 32**2] * 3]
    by_hand += [(16 * 32 + 32 * 32) * 16**2, 2 * 32 * 32 * 16**2, 2 * 32 * 32 * 16**2]
    by_hand += [(32 * 64 + 64 * 64) * 8**2, 2 * 64 * 64 * 8**2, 2 * 64 * 64 * 8**2]
    assert sum(costs) == pytest.approx(1.0)
    assert costs == pytest.approx([macs / sum(by_hand) for macs in by_hand], abs=0.01)


def test_progress_tells_the_stage_and_how_far() -> None:
    whole = inversion(replace(EVERYTHING, start="stem"))
    seen = list(whole.run())
    assert [step.done for step in seen] == list(range(1, len(seen) + 1))
    assert {step.total for step in seen} == {len(seen)} == {3 * 7}
    assert [step.stage for step in seen[:3]] == ["layer 0", "layer 0", "full model"]
    assert [step.where for step in (seen[0], seen[-1])] == [
        "batch 1/3, stage 1/2: layer 0",
        "batch 3/3, stage 2/2: full model",
    ]


def test_progress_tells_how_much_of_the_work_is_done() -> None:
    """A step of the stem is less than one of the whole network; batches count by size."""
    whole = inversion(replace(EVERYTHING, start="stem"))
    parts = [0.0, *(step.part for step in whole.run())]
    growth = [after - before for before, after in itertools.pairwise(parts)]
    stem = whole.plan.costs[0]
    assert growth[0] / growth[2] == pytest.approx(stem) and growth[20] / growth[2] == pytest.approx(4 / 3)
    assert parts[-1] == pytest.approx(1)


def test_a_step_shows_its_images_when_it_is_asked() -> None:
    whole = inversion(replace(EVERYTHING, start="stem", keep_best=False, batch=10, spectrum=0.5))
    shown = []
    for step in whole.run():
        if step.stage == "layer 0":
            with pytest.raises(ValueError, match="full-model stage alone"):
                step.images()
        else:
            shown += [step.first_images(), step.images()] if step.number == 1 else [step.images()]
            assert not shown[-1].requires_grad and shown[-1].shape == (10, *SHAPE)
    assert len(shown) == 1 + 5 and not torch.equal(shown[0], shown[1])
    assert torch.equal(shown[-1], whole.images())
