"""Test that what a method holds beside its network is counted whole, in every method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pmi_cl.models.storage import KINDS, bytes_of
from pmi_cl.utils.reports.comparison_tables import cells
from tests.support.method_runs import ONE_BY_ONE, trained_twice, uninterrupted
from tests.support.run_records import in_results, record, rows_below
from tests.support.small_runs import METHODS, tensors_in

# Of a state: the network that classifies and what it is optimised by; what a task begins anew; the
# inversion under way, and figures of what was done.
NETWORK = {"task", "net", "learned", "opt", "pool_tasks", "query"}
OF_THE_TASK = {"projections", "counts", "class_weights", "stage", "inversion", "bill", "pixels", "steps_in_all"}


@pytest.mark.parametrize("method", METHODS)
def test_the_bytes_are_those_that_a_checkpoint_must_keep(method: str) -> None:
    """After the last task a checkpoint holds nothing else that the next task would need."""
    training = uninterrupted(method, "plain")
    state = training.model.state()
    kept = {name: value for name, value in state.items() if name not in NETWORK | OF_THE_TASK}
    expected = sum(len(tensor.cpu().contiguous().numpy().tobytes()) for tensor in tensors_in(kept))
    stored = training.model.stored()
    assert sum(stored.values()) == expected and set(stored) <= set(KINDS)
    by_task = training.figures.stored()
    assert by_task["after_task"][-1] == {kind: count for kind, count in stored.items() if count}
    assert [len(counts) for counts in by_task.values()] == [training.tasks_to_train] * 2


@pytest.mark.parametrize("method", [name for name in ("pmi_rdfcil", "rdfcil") if name in ONE_BY_ONE])
def test_what_lives_within_a_task_is_counted_there(method: str) -> None:
    model = trained_twice(method)[0].model
    state, stored = model.state(), model.stored()
    if method == "rdfcil":
        nets = [state["generator"]["net"], state["teacher"]]
        assert stored["networks"] == sum(tensor.nbytes for net in nets for tensor in net.values())
    else:
        images = 24 * (3 * 16 * 16 * 4 + 8 + 2 * 4)  # float32 pixels, a label, logits of two old classes
        assert stored["synthetic images"] == images == bytes_of(state["buffer"])


def test_bytes_of_counts_tensors_wherever_they_are() -> None:
    norm = nn.BatchNorm2d(5)  # 4 vectors of 5 floats, and a counter of 8 bytes
    assert bytes_of(norm) == 4 * 5 * 4 + 8
    half = torch.zeros(3, 4, dtype=torch.bfloat16)
    assert bytes_of(half, {"a": [norm, None, 7, "text"]}, (torch.zeros(2, dtype=torch.uint8),)) == 24 + 88 + 2
    assert bytes_of() == bytes_of(None) == 0


def test_compare_shows_what_is_stored_and_what_of_it_is_real(tmp_path: Path) -> None:
    mib = 2**20
    for model, real in (("free", 0), ("exemplars", 3 * mib)):
        record(tmp_path / model, 0, 50.0, model=model)
        after = [{"networks": mib}, {"networks": mib, "real images": real}]
        in_results(tmp_path / model, stored={"after_task": after, "while_training": [{}, {"networks": 5 * mib}]})
    record(tmp_path / "old", 0, 50.0, model="old")  # a record of version 0.1.0
    titles, *lines = cells(rows_below(tmp_path))
    names = ("stored, MiB", "of it real images, MiB", "in a task, MiB")
    shown = {line[0]: [line[titles.index(name)] for name in names] for line in lines}
    assert shown == {"exemplars": ["4.00", "3.00", "5.00"], "free": ["1.00", "0", "5.00"], "old": ["", "", ""]}
    titles = cells([row for row in rows_below(tmp_path) if row.method != "exemplars"])[0]
    assert "stored, MiB" in titles and "of it real images, MiB" not in titles
