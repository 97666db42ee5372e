"""Seconds and peak memory, each charged to the phase that used it."""

from __future__ import annotations

import time

import pytest
import torch

from pmi_cl.utils.records.resources import Phases
from tests.support.fresh_memory import touch


def test_an_outer_phase_is_not_charged_for_the_inner_one():
    phases = Phases()
    began = time.perf_counter()
    with phases.phase("outer"):
        time.sleep(0.02)
        with phases.phase("inner"):
            time.sleep(0.06)
        time.sleep(0.02)
    spent = time.perf_counter() - began
    seconds = phases.seconds()
    assert seconds["inner"] >= 0.06 and 0.04 <= seconds["outer"] < spent - 0.06 + 1e-9
    assert sum(seconds.values()) == pytest.approx(spent, abs=2e-3)


def test_phases_add_up_over_entries_exceptions_and_a_resumed_run():
    phases = Phases()
    with pytest.raises(ZeroDivisionError), phases.phase("training"):
        time.sleep(0.01)
        raise ZeroDivisionError
    with phases.phase("training"):
        time.sleep(0.01)
        state = phases.state_dict()  # as at a safe point, inside the phase
    resumed = Phases()
    resumed.load_state_dict(state)
    with resumed.phase("training"):
        time.sleep(0.01)
    assert resumed.seconds()["training"] >= 0.03
    assert resumed.peak_memory_mib()["training"] > 0
    resumed_again = resumed.seconds()["training"]
    assert resumed_again == resumed.seconds()["training"], "a closed phase goes on costing"


def test_peak_memory_belongs_to_the_phase_that_used_it():
    phases = Phases()
    with phases.phase("small"):
        pass
    with phases.phase("large"):
        touch(200)
    with phases.phase("after"):
        pass
    peak = phases.peak_memory_mib()
    assert peak["large"] - peak["small"] > 180  # the system counts pages in batches
    # No mark to reset here.
    assert peak["after"] - peak["small"] < 20 or peak["after"] == pytest.approx(peak["large"], rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_its_own_memory_is_measured():
    phases = Phases(torch.device("cuda", 0))
    with phases.phase("training"):
        torch.zeros(64 * 2**18, device="cuda")
    assert 64 <= phases.peak_memory_mib()["training"] < 128
