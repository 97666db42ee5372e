"""The measurement of how far PMI carries its targets: its figures, its command, its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pmi_cl.benchmarks.carried_targets import main
from pmi_cl.benchmarks.cifar_judges import load_digits
from pmi_cl.benchmarks.decay_report import draw, means, report
from pmi_cl.benchmarks.target_decay import DecaySettings, centred_cosine, measure
from pmi_cl.seeding import seeded
from tests.support.small_networks import two_blocks


def test_the_cosine_is_one_for_the_targets_and_none_for_their_mean() -> None:
    targets = torch.randn(6, 4, generator=seeded(0)) + 10
    assert centred_cosine(targets, targets) == pytest.approx(1)
    mirrored = 2 * targets.mean(dim=0) - targets
    assert centred_cosine(mirrored, targets) == pytest.approx(-1, abs=1e-5)
    assert centred_cosine(targets.mean(dim=0).expand(6, -1), targets) == pytest.approx(0, abs=1e-3)


def measured() -> dict[str, Any]:
    """Measure the smallest network on digits."""
    network = two_blocks()
    network.head.grow(7)
    settings = DecaySettings(images=20, pmi_steps=3, looks=(0, 1, 3))
    return measure(network, load_digits(10), settings, seed=0)


def test_every_layer_and_every_look_has_a_row(tmp_path: Path) -> None:
    found = measured()
    sweeps = {name: [row["layer"] for row in rows] for name, rows in found["layers"].items()}
    assert sweeps == {"pmi": [2, 1, 0], "pmi, lower rate": [2, 1, 0], "pmi, shuffled targets": [2, 1, 0]}
    looks = {name: [row["steps"] for row in rows] for name, rows in found["full"].items()}
    assert looks == {"pmi": [0, 1, 3], "pmi, shuffled targets": [0, 1, 3], "stats": [0, 1, 3]}
    assert found["targets"]["cosine"] == pytest.approx(1)
    last, first = found["layers"]["pmi"][-1], found["full"]["pmi"][0]  # the image: the same one, judged twice
    assert last["cosine"] == pytest.approx(first["cosine"]) and last["accuracy"] == first["accuracy"]
    seeds = [{"seed": seed, "test_accuracy": 0.5, **found} for seed in (0, 1)]
    network = {"backbone": "two blocks"}
    record = {"settings": {"dataset": "seq-digits", "images": 20, "network": network}, "seeds": seeds}
    assert means(record, "layers", "layer")["pmi"][2][1] == last["accuracy"]
    text = report(record)
    assert "after the sweep of layer" in text and f"{last['accuracy']:.2f}/{last['cosine']:.2f}" in text
    draw(record, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "15"], "--images 15: give a multiple of 10"),
        (["--threads", "0"], "--threads 0: give at least 1"),
        (["--json", "nowhere/x.json"], "--json nowhere/x.json: there is no folder nowhere"),
        (["--picture", "nowhere/x.png"], "--picture nowhere/x.png: there is no folder nowhere"),
        (["--base_path", "nowhere"], "cifar-100-python"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    told = capsys.readouterr().err
    assert said in told and len(told.strip().splitlines()) == 1 and not list(tmp_path.iterdir())
