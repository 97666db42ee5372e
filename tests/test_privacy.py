"""Test the figures of ``pmi-cl privacy`` against brute force, and the command on small runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmi_cl.cli import main
from pmi_cl.seeding import seeded
from pmi_cl.utils.trained import privacy_figures
from pmi_cl.utils.trained.privacy_figures import area_under_curve, membership, nearest, ratio_of_distances
from tests.support.command_runs import quick


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def test_the_nearest_is_that_of_a_double_loop() -> None:
    points, others = draws(300, 4), draws(9, 4, seed=1)
    distances, rows = nearest(points, others)
    for point, distance, row in zip(points.double(), distances, rows, strict=True):
        by_hand = [float((point - other.double()).square().sum().sqrt()) for other in others]
        assert int(row) == int(np.argmin(by_hand)) and float(distance) == pytest.approx(min(by_hand), abs=1e-5)


def test_the_area_is_the_part_of_pairs_that_are_in_order() -> None:
    members, others = draws(13).round(decimals=0), draws(17, seed=1).round(decimals=0) - 0.3
    members[:4] = others[:4]  # ties
    right = sum(float(a > b) + 0.5 * float(a == b) for a in members for b in others) / (13 * 17)
    assert area_under_curve(members, others) == pytest.approx(right)
    assert area_under_curve(members + 99, others) == 1.0 and area_under_curve(others - 99, others) == 0.0


def test_an_interval_covers_the_truth_and_shrinks_with_the_images() -> None:
    known = 0.7602  # P(a > b) for normals one deviation apart: Phi(1 / sqrt 2)
    widths = []
    for n in (60, 600):
        found = membership(draws(n) + 1, draws(n, seed=1), 0)
        assert found.low < found.value < found.high and found.low < known < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_the_ratio_is_a_geometric_mean() -> None:
    points = torch.tensor([[0.0], [10.0], [20.0]])
    trained, held_out = torch.tensor([[1.0], [14.0], [22.0]]), torch.tensor([[-2.0], [8.0], [18.0]])
    found = ratio_of_distances(points, trained, held_out, 0)
    assert found.value == pytest.approx((1 / 2 * 4 / 2 * 2 / 2) ** (1 / 3)) and found.low < found.value < found.high
    assert ratio_of_distances(points, held_out, held_out, 0) == (1.0, 1.0, 1.0)


def test_one_copy_does_not_outweigh_all_other_images() -> None:
    points, trained = draws(9, 3), 2 * draws(9, 3, seed=1)
    held_out = 2 * draws(9, 3, seed=2)
    copied = torch.cat([points[:1], trained[1:]])
    found, usual = (ratio_of_distances(points, side, held_out, 0).value for side in (copied, trained))
    assert usual > found > usual * 0.001 ** (1 / 9) / 3
    assert ratio_of_distances(points, points, held_out, 0).value < 0.01  # all are copies


def test_the_interval_of_the_ratio_is_over_real_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many synthetic images near a few real ones are no more than a few comparisons."""
    monkeypatch.setattr(privacy_figures, "DRAWS", 60)
    held = 0
    for seed in range(20):
        trained, held_out, points = (draws(n, 2, seed=3 * seed + k) for k, n in enumerate((6, 6, 100)))
        found = ratio_of_distances(points, trained, held_out, seed)
        held += found.low <= 1 <= found.high
    assert held >= 16  # of 20: there is no difference
    trained, held_out = draws(40, 5), draws(40, 5, seed=1)
    near = ratio_of_distances(trained + 0.1 * draws(40, 5, seed=2), trained, held_out, 0)
    assert near.high < 0.5


def test_distances_of_almost_equal_points_are_exact() -> None:
    points = 100 + draws(30, 50)
    moved = points + 1e-3
    torch.testing.assert_close(nearest(points, moved)[0], (moved - points).norm(dim=1))


@pytest.mark.parametrize("method", ["rdfcil", "pmi_rdfcil", "abd"])
def test_the_command_measures_a_run(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = quick(method, tmp_path, "run")[1]
    capsys.readouterr()
    words = ["privacy", str(run), "--images", "24", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "out/privacy.json").read_text())
    assert found["synthetic"] == 24 and found["trained"] == found["held_out"] <= 4 * 16
    assert set(found["ratios"]) == {"pixels", "features"}
    assert set(found["members"]) == ({"head", "statistics"} if method == "pmi_rdfcil" else {"head"})
    assert f"{found['ratios']['pixels']['value']:.3f}" in text and "membership" in text
    assert Image.open(tmp_path / "out/closest_pairs.png").size[0] > 300
    assert main(words) == 0 and capsys.readouterr().out == text  # the same figures again


def test_a_run_without_synthetic_images_or_a_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = quick("sgd", tmp_path, "run")[1]
    for words, expected in (
        ([str(run)], "sgd makes no synthetic images on a ResNet"),
        ([str(run), "--images", "1"], "--images"),
        ([], "takes one run"),
    ):
        capsys.readouterr()
        assert main(["privacy", *words]) == 2
        line = capsys.readouterr().err
        assert expected in line and line.count("\n") == 1
    (run / "checkpoint.pt").unlink()
    assert main(["privacy", str(run)]) == 2
    assert "has no checkpoint.pt" in capsys.readouterr().err
