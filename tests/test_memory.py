"""Peak memory: of the process since a mark, and in the report of an inversion."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pmi_cl.inversion.config import InversionConfig
from pmi_cl.inversion.invert import invert
from pmi_cl.inversion.objectives import FeatureMatch
from pmi_cl.machine.memory import MemoryGauge, memory_of_the_machine, peak_resident_mib
from tests.support.fresh_memory import touch
from tests.support.small_networks import two_blocks


def test_the_peak_is_that_since_the_last_reset() -> None:
    gauge = MemoryGauge()
    gauge.reset()
    before = gauge.peak_mib()
    touch(200)
    assert gauge.peak_mib() - before > 180  # the system counts pages in batches
    assert gauge.peak_mib() == pytest.approx(peak_resident_mib(), abs=1) and peak_resident_mib() > 10
    large = gauge.peak_mib()
    gauge.reset()
    assert gauge.peak_mib() <= large  # equal where the system lets no process reset its mark


class Wasteful(FeatureMatch):
    """A term that uses 200 MiB for a moment."""

    def __call__(self, batch):
        touch(200)
        return super().__call__(batch)


def test_an_inversion_reports_the_peak_of_its_own_call() -> None:
    def peak(term: FeatureMatch) -> float:
        config = InversionConfig(steps=2, batch=4, terms=(term,))
        report = invert(two_blocks(), image_shape=(3, 8, 8), targets=torch.randn(4, 32), config=config).report
        assert report.peak_memory_mib is not None and report.summary()["peak_memory_mib"] == report.peak_memory_mib
        return report.peak_memory_mib

    thrifty = peak(FeatureMatch())
    wasteful = peak(Wasteful())
    assert thrifty > 10 and wasteful - thrifty > 120
    assert peak(FeatureMatch()) <= wasteful


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_its_own_memory_is_measured() -> None:
    gauge = MemoryGauge(torch.device("cuda", 0))
    gauge.reset()
    before = gauge.peak_mib()
    torch.zeros(64 * 2**18, device="cuda")
    assert gauge.peak_mib() - before == pytest.approx(64, abs=4)


@pytest.mark.parametrize(
    ("groups", "limits"),
    [
        ("0::/job/step\n", {"job/memory.max": "1000000\n", "job/step/memory.max": "max\n"}),
        ("0::/\n", {"memory.max": "1000000\n"}),
        (
            "7:cpu:/x\n4:memory:/job\n0::/y\n",
            {"memory/job/memory.limit_in_bytes": "1000000\n", "y/memory.max": "2000000\n"},
        ),
    ],
)
def test_a_containers_limit_is_the_memory_that_there_is(groups: str, limits: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text(groups)
    for name, text in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert memory_of_the_machine(tmp_path / "cgroup", tmp_path / "groups") == 1_000_000


def test_without_a_limit_it_is_the_machines() -> None:
    nowhere = Path("/nowhere")
    assert memory_of_the_machine(nowhere, nowhere) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
