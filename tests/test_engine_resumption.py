"""Test that an inversion goes on bit for bit from a state anywhere."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.inversion.starts import STARTS
from tests.support.small_inversions import EVERYTHING, finished, inversion


def written(state: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Write and read a state as a checkpoint is: tensors and plain data only."""
    return torch.load(io.BytesIO(written(state)), weights_only=True)


def curves(whole: Inversion) -> list[tuple[int, str, list[float]]]:
    return [(entry["batch"], entry["stage"], entry["losses"].tolist()) for entry in whole.report.losses]


# the first step of a stage, its last, the last of a batch, the very last, and between; a batch
# has 14 steps, 7, or 5
STOPS = {"pmi": (0, 1, 3, 8, 9, 12, 14, 25, 33, 42), "stem": (0, 1, 2, 5, 7, 10, 16, 21)}


@pytest.mark.parametrize(("start", "spectrum"), [*((start, 0.0) for start in STARTS), ("lowfreq", 0.5)])
def test_resumes_bit_for_bit_wherever_it_stops(start: Any, spectrum: float) -> None:
    config = replace(EVERYTHING, start=start, spectrum=spectrum)
    whole, first, taken = finished(config), inversion(config), 0
    steps = first.run()
    for stop in STOPS.get(start, (0, 1, 4, 5, 9, 15)):
        for _ in range(taken, stop):
            next(steps)
        taken, second = stop, inversion(config)
        second.load(through_a_file(first.state()))
        done = [progress.done for progress in second.run()]
        assert done == list(range(stop + 1, whole.total_steps + 1))
        assert torch.equal(second.images(), whole.images()), f"stopped after {stop} steps"
        assert curves(second) == curves(whole)
        assert second.report.step_equivalents == pytest.approx(whole.report.step_equivalents)
        assert (second.report.images, second.report.steps) == (whole.report.images, whole.report.steps)


def test_a_finished_state_has_the_images() -> None:
    config = replace(EVERYTHING, start="lowfreq")
    whole, again = finished(config), inversion(config)
    again.load(through_a_file(whole.state()))
    assert torch.equal(again.images(), whole.images()) and list(again.run()) == []


def test_a_state_is_not_touched_by_further_steps_nor_by_being_loaded() -> None:
    config = replace(EVERYTHING, start="pmi")
    first, second = inversion(config), inversion(config)
    steps = first.run()
    for _ in range(20):
        next(steps)
    state = first.state()
    kept = written(state)
    for _ in steps:
        pass
    second.load(state)
    for _ in second.run():
        pass
    assert written(state) == kept
    assert torch.equal(first.images(), second.images())
