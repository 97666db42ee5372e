"""Test which runs share a table, a row and a plot.

What differs in what a result means is a column or another table: network, weights, protocol.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.utils.reports.comparison import comparisons, read_runs
from pmi_cl.utils.reports.comparison_tables import cells
from tests.support.run_records import in_results, record, rows_below

CLIP = {"name": "clip-tiny", "model": None, "tag": "clip-tiny", "file": "x.safetensors", "sha256": "2002c48d5a9e"}


def plain(text: str) -> str:
    """Return a label without the blanks at which no line is broken."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_pretrained_networks_share_no_table_with_networks_from_scratch(tmp_path: Path) -> None:
    for name, weights in {"resnet20": None, "clip-tiny": CLIP, "clip": {**CLIP, "tag": "random"}}.items():
        record(tmp_path / name, 0, 60.0, backbone=name)
        in_results(tmp_path / name, backbone_weights=weights)
    found = comparisons(read_runs([tmp_path])[0])
    assert {title: [row.network for row in rows] for title, rows in found.items()} == {
        "seq-digits, 2 tasks; networks from scratch": ["clip, random weights", "resnet20, from scratch"],
        "seq-digits, 2 tasks; pretrained networks": ["clip-tiny, pretrained clip-tiny (2002c48d)"],
    }


def test_what_differs_in_the_network_is_no_row_of_another(tmp_path: Path) -> None:
    """It is the backbone, its weights and options, and the precision of the inversion."""
    record(tmp_path / "a", 0, 60.0)
    record(tmp_path / "b", 1, 60.0, backbone="resnet18")
    for place, (name, changes) in enumerate(
        {
            "c": {"backbone_weights": CLIP},
            "d": {"backbone_weights": {**CLIP, "sha256": "other"}},
            "e": {
                "backbone_weights": CLIP,
                "precision": "bfloat16",
                "inversion": {"images": 4, "seconds_per_image": 1},
            },
        }.items()
    ):
        record(tmp_path / name, place, 60.0, backbone="clip-tiny", clip_weights=f"/somewhere/{name}")
        in_results(tmp_path / name, **changes)
    record(tmp_path / "f", 5, 60.0, backbone="clip-tiny", clip_gelu="quick")
    in_results(tmp_path / "f", backbone_weights=CLIP)
    path = tmp_path / "f" / "args.json"
    path.write_text(path.read_text().replace("preset digits", "flag"))
    rows = [row for table in comparisons(read_runs([tmp_path])[0]).values() for row in table]
    assert sorted((row.network, row.precision, *row.runs) for row in rows) == [
        ("clip-tiny, pretrained clip-tiny (2002c48d)", "bfloat16", 2),
        ("clip-tiny, pretrained clip-tiny (2002c48d)", "float32", 0),
        ("clip-tiny, pretrained clip-tiny (2002c48d), clip_gelu=quick", "float32", 5),
        ("clip-tiny, pretrained clip-tiny (other)", "float32", 1),
        ("resnet18, from scratch", "float32", 1),
        ("resnet20, from scratch", "float32", 0),
    ]


def test_what_takes_nothing_away_is_no_other_protocol(tmp_path: Path) -> None:
    record(tmp_path / "a", 0, 60.0, stop_after=None)
    record(tmp_path / "b", 1, 50.0, train_per_class=500, stop_after=2)
    in_results(tmp_path / "b", without_effect=["train_per_class", "stop_after"], images={"train": 1000, "test": 200})
    record(tmp_path / "c", 2, 40.0, train_per_class=20)
    in_results(tmp_path / "c", without_effect=[], images={"train": 40, "test": 200})
    found = comparisons(read_runs([tmp_path])[0])
    assert {title.partition(";")[0]: list(row.runs) for title, (row,) in found.items()} == {
        "seq-digits, 2 tasks": [0, 1],
        "seq-digits, 2 tasks, train_per_class 20": [2],
    }


def test_the_same_words_for_other_images_share_no_table(tmp_path: Path) -> None:
    """A folder of images may grow between two runs."""
    for seed, train in enumerate((1000, 1000, 1200)):
        record(tmp_path / f"s{seed}", seed, 60.0, data_dir="birds")
        in_results(tmp_path / f"s{seed}", images={"train": train, "test": 200})
    found = comparisons(read_runs([tmp_path])[0])
    assert [(title.rpartition("; ")[2], list(row.runs)) for title, (row,) in found.items()] == [
        ("1000 training and 200 test images", [0, 1]),
        ("1200 training and 200 test images", [2]),
    ]


def test_costs_have_digits_and_figures_say_of_how_many_seeds(tmp_path: Path) -> None:
    for seed, pace in enumerate((0.00412, 0.00398, None)):
        record(tmp_path / f"s{seed}", seed, 60.0)
        in_results(tmp_path / f"s{seed}", inversion={"images": 5, "seconds_per_image": pace}, seconds={"training": 1.2})
    titles, line = cells(rows_below(tmp_path))
    row = dict(zip(titles, line, strict=True))
    assert row["s per sample"] == "0.00405 ± 0.00010 (n = 2)"
    assert (row["minutes"], row["n"]) == ("0.0200 ± 0.0000", "3")


def test_a_row_is_named_by_its_network_where_nothing_else_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("resnet18", "resnet20"):
        record(tmp_path / name, 0, 60.0, backbone=name)
    assert main(["compare", str(tmp_path), "--against", "sgd digits"]) == 2
    advice = "write network and precision too, as in 'sgd digits, resnet18, from scratch, float32'"
    assert advice in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "--against", "sgd digits, resnet18, from scratch, float32"]) == 0
    assert "+0.00" in capsys.readouterr().out


def test_panels_have_titles_and_one_range_of_accuracies(tmp_path: Path) -> None:
    from pmi_cl.utils.reports.comparison_plot import accuracy_over_tasks

    record(tmp_path / "a", 0, 60.0)
    record(tmp_path / "b", 0, 20.0, n_classes=4)
    record(tmp_path / "c", 0, 25.0, n_classes=4, backbone="resnet18")
    upper, lower = accuracy_over_tasks(comparisons(read_runs([tmp_path])[0])).axes
    assert upper.get_ylim() == lower.get_ylim()
    assert upper.get_title("left") == "Plot 1 of 2: seq-digits, 2 tasks, n_classes 4; networks from scratch"
    assert lower.get_title("left") == "Plot 2 of 2: seq-digits, 2 tasks; networks from scratch; network: resnet20"
    texts = [plain(text.get_text()) for text in upper.get_legend().get_texts()]  # type: ignore[union-attr]
    assert texts == ["sgd digits, resnet18, from scratch (n = 1)", "sgd digits, resnet20, from scratch (n = 1)"]


@pytest.mark.parametrize(("layout", "mark"), [("markdown", "### Table 1 of 2: seq"), ("latex", r"\caption{seq")])
def test_every_table_has_a_title(tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str, mark: str) -> None:
    record(tmp_path / "a", 0, 60.0)
    record(tmp_path / "b", 0, 20.0, n_classes=4)
    assert main(["compare", str(tmp_path), "--format", layout]) == 0
    assert mark in capsys.readouterr().out
