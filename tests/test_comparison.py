"""Test the comparison of runs.

Runs are grouped by their settings, seeds averaged, differences paired. Nothing is shown that is not
in the records.
"""

from __future__ import annotations

import csv
import io
import os
import statistics
from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.utils.reports.comparison import comparisons, read_runs
from pmi_cl.utils.reports.comparison_tables import cells, differences
from tests.support.run_records import record, rows_below

LAST, AVERAGE = 5, 6  # columns


def test_runs_that_differ_in_their_seed_alone_share_a_row(tmp_path: Path) -> None:
    for seed, last in enumerate((80.0, 84.0, 88.0)):
        record(tmp_path / f"s{seed}", seed, last)
    record(tmp_path / "other", 0, 50.0, lr=0.3)
    record(tmp_path / "stopped", 5, 1.0, status="interrupted")
    titles, first, second = cells(rows_below(tmp_path))
    assert titles == [
        "method",
        "settings",
        "network",
        "seeds",
        "n",
        "last, %",
        "average, %",
        "forgetting",
        "task-IL last, %",
        "minutes",
    ]
    assert first[:LAST] == ["sgd", "digits", "resnet20, from scratch", "0 1 2", "3"]
    assert first[LAST] == f"84.00 ± {statistics.stdev([80, 84, 88]):.2f}"
    assert first[-1] == "1.00 ± 0.00"
    assert second[1:AVERAGE] == ["digits lr=0.3", "resnet20, from scratch", "0", "1", "50.00"]


def test_runs_on_different_folders_of_images_are_of_different_protocols(tmp_path: Path) -> None:
    for name, last in (("birds", 80.0), ("cars", 21.0)):
        record(tmp_path / name, 0, last, data_dir=f"images/{name}")
    found = comparisons(read_runs([tmp_path])[0])
    assert {
        title.partition(";")[0].rpartition(" ")[2]: row.figure("class_il", "last") for title, (row,) in found.items()
    } == {
        "images/birds": {0: 80.0},
        "images/cars": {0: 21.0},
    }


def test_values_that_a_changed_preset_hides_are_named(tmp_path: Path) -> None:
    for seed in (0, 1):
        record(tmp_path / f"few{seed}", seed, 60.0, generator_steps=100, wd=1)
        record(tmp_path / f"many{seed}", seed, 50.0, generator_steps=400, wd=1)
    assert [row.settings for row in rows_below(tmp_path)] == [
        "digits generator_steps=100",
        "digits generator_steps=400",
    ]


def test_a_record_older_than_an_option_has_its_default(tmp_path: Path) -> None:
    record(tmp_path / "old", 0, 60.0)
    record(tmp_path / "new", 1, 62.0, spectrum=0)
    recorded = tmp_path / "new" / "args.json"
    recorded.write_text(recorded.read_text().replace('"preset digits"', '"default"'))
    record(tmp_path / "other", 2, 70.0, spectrum=0.5)
    assert [(row.settings, list(row.runs)) for row in rows_below(tmp_path)] == [
        ("digits spectrum=0", [0, 1]),
        ("digits spectrum=0.5", [2]),
    ]


def test_flags_that_all_rows_share_stand_above_the_table(tmp_path: Path) -> None:
    record(tmp_path / "a", 0, 60.0, lr=0.3)
    record(tmp_path / "b", 0, 50.0, lr=0.3, model="vpt")
    ((protocol, rows),) = comparisons(read_runs([tmp_path])[0]).items()
    assert protocol == "seq-digits, 2 tasks; networks from scratch"  # one setting: it is what tells most about the rows
    assert [row.settings for row in rows] == ["digits lr=0.3"] * 2
    record(tmp_path / "c", 0, 50.0, lr=0.3, wd=1)
    path = tmp_path / "c" / "args.json"
    path.write_text(path.read_text().replace("preset digits", "flag"))
    ((protocol, rows),) = comparisons(read_runs([tmp_path])[0]).items()
    assert protocol == "seq-digits, 2 tasks; networks from scratch; all with lr=0.3"
    assert [row.name for row in rows] == ["sgd digits", "sgd digits wd=1", "vpt digits"]


@pytest.mark.parametrize(
    "option", ["class_order", "n_classes", "train_per_class", "validation", "split", "debug_mode", "allow_other_split"]
)
def test_runs_of_different_protocols_share_no_table(tmp_path: Path, option: str) -> None:
    record(tmp_path / "a", 0, 60.0, **{option: 1})
    record(tmp_path / "b", 0, 50.0, model="vpt", **{option: 2})
    assert [len(rows) for rows in comparisons(read_runs([tmp_path])[0]).values()] == [1, 1]


def test_of_two_runs_of_one_seed_the_later_counts(tmp_path: Path) -> None:
    for place, (name, last) in enumerate({"z-first": 60.0, "a-second": 64.0}.items()):
        record(tmp_path / name, 0, last)
        os.utime(tmp_path / name / "results.json", (place, place))
    (row,) = rows_below(tmp_path)
    assert row.figure("class_il", "last") == {0: 64.0}
    assert row.repeats == (tmp_path / "z-first",)


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    for seed, (plain, better) in {0: (50.0, 61.0), 1: (70.0, 79.0), 2: (60.0, 0.0)}.items():
        record(tmp_path / f"sgd{seed}", seed, plain)
        if seed < 2:
            record(tmp_path / f"vpt{seed}", seed, better, model="vpt")
    sgd, vpt = rows_below(tmp_path)
    assert differences(vpt, sgd) == {"last, %": {0: 11.0, 1: 9.0}, "average, %": {0: 11.0, 1: 9.0}}
    table = cells([sgd, vpt], sgd)
    assert table[0][-2:] == ["last - sgd digits", "average - sgd digits"]
    assert table[1][-2:] == ["", ""] and table[2][-2] == f"+10.00 ± {statistics.stdev([11, 9]):.2f}"


def test_what_is_no_record_is_passed_over_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "good", 0, 60.0)
    for name, text in {"torn": '{"status": ', "list": "[]", "empty": "{}", "poor": '{"status": "finished"}'}.items():
        record(tmp_path / name, 0, 60.0)
        (tmp_path / name / "results.json").write_text(text)
    record(tmp_path / "alone", 0, 60.0)
    (tmp_path / "alone" / "args.json").unlink()
    assert main(["compare", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out.count("`sgd`") == 1
    assert all(f"passed over {tmp_path / name}: " in said.err for name in ("torn", "list", "empty", "poor", "alone"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{runs}/gone"], "there is no folder"),
        (["{runs}/hollow"], "no finished run below"),
        (["{runs}", "--formt", "csv"], "did you mean --format?"),
        (["{runs}", "--format", "xls"], "choose from markdown, latex, csv"),
        (["{runs}", "--plot", "x.gif"], "one of the endings .png, .pdf, .svg"),
        (["{runs}", "--against", "sdg"], "unknown method in the table 'sdg': did you mean sgd?"),
        (["{runs}", "--against", "sdg", "--format", "csv"], "unknown method in the table 'sdg': did you mean sgd?"),
        (["{runs}", "--against", "sgd"], "2 rows have that method, write the settings too, as in 'sgd digits'"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    record(tmp_path / "a", 0, 60.0)
    record(tmp_path / "b", 0, 50.0, lr=0.3)
    (tmp_path / "hollow").mkdir()
    assert main(["compare", *(word.replace("{runs}", str(tmp_path)) for word in words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_csv_has_every_run_as_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        record(tmp_path / f"s{seed}", seed, 60.0 + seed)
    assert main(["compare", str(tmp_path), "--format", "csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["seed"], float(line["last, %"]), line["run"]) for line in lines] == [
        ("0", 60.0, str(tmp_path / "s0")),
        ("1", 61.0, str(tmp_path / "s1")),
    ]


def test_csv_has_the_differences_of_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        record(tmp_path / f"sgd{seed}", seed, 60.0 + seed)
    record(tmp_path / "vpt", 1, 70.0, model="vpt")
    assert main(["compare", str(tmp_path), "--format", "csv", "--against", "sgd"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["method"], line["seed"], line["last - sgd digits"]) for line in lines] == [
        ("sgd", "0", ""),
        ("sgd", "1", ""),
        ("vpt", "1", "9.0"),
    ]
    assert lines[-1]["average - sgd digits"] == "9.0" and lines[-1]["run"] == str(tmp_path / "vpt")


def test_latex_escapes_what_latex_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "a", 0, 60.0, model="pmi_moe")
    assert main(["compare", str(tmp_path), "--format", "latex"]) == 0
    text = capsys.readouterr().out
    assert r"pmi\_moe & digits & resnet20, from scratch & 0 & 1 & 60.00 & 61.00" in text and r"last, \%" in text


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_plot_is_drawn(tmp_path: Path, ending: str) -> None:
    for seed in (0, 1):
        record(tmp_path / f"s{seed}", seed, 60.0 + seed)
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    file = tmp_path / "new" / f"curves.{ending}"
    assert main(["compare", str(tmp_path), "--plot", str(file)]) == 0
    assert file.read_bytes().startswith(starts[ending])


def test_the_plot_shows_the_mean_over_tasks_seen_and_its_deviation(tmp_path: Path) -> None:
    from pmi_cl.utils.reports.comparison_plot import accuracy_over_tasks

    for seed in (0, 1):
        record(tmp_path / f"s{seed}", seed, 60.0 + 10 * seed)
    figure = accuracy_over_tasks({"both": rows_below(tmp_path)})
    (line,), (band,) = figure.axes[0].lines, figure.axes[0].collections
    assert list(line.get_ydata()) == [90.0, 65.0]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((65 - statistics.stdev([60, 70]), 90.0))


def test_the_legend_tells_every_two_rows_apart(tmp_path: Path) -> None:
    """A row is called what the table calls it, and nothing is cut."""
    from pmi_cl.utils.reports.comparison_plot import LABEL_WIDTH, accuracy_over_tasks

    long = {f"option_with_a_long_name_{number}": 1 for number in range(5)}
    for place, last_option in enumerate((1, 2)):
        record(tmp_path / f"s{place}", 0, 60.0, **long, z_last=last_option)
    record(tmp_path / "vpt", 0, 60.0, model="vpt")
    for path in tmp_path.rglob("args.json"):
        path.write_text(path.read_text().replace("preset digits", "flag"))
    rows = rows_below(tmp_path)
    texts = accuracy_over_tasks({"all": rows}).axes[0].get_legend().get_texts()  # type: ignore[union-attr]
    shown = [text.get_text().replace("\N{NO-BREAK SPACE}", " ") for text in texts]
    assert [" ".join(text.split()) for text in shown] == [f"{row.method} {row.settings} (n = 1)" for row in rows]
    assert len(rows) == 3 and shown[-1] == "vpt digits (n = 1)"
    record(tmp_path / "other", 0, 60.0, **{name.replace("long", "strange"): 2 for name in long})
    path = tmp_path / "other" / "args.json"
    path.write_text(path.read_text().replace("preset digits", "flag"))
    texts = accuracy_over_tasks({"all": rows_below(tmp_path)}).axes[0].get_legend().get_texts()  # type: ignore[union-attr]
    shown = [text.get_text() for text in texts]
    assert len(set(shown)) == 4 and all(len(line) <= LABEL_WIDTH for text in shown for line in text.split("\n"))
    assert not any("…" in text for text in shown) and sum("z_last=" in text for text in shown) == 2


def test_a_plot_that_cannot_be_written_says_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "runs", 0, 60.0)
    (tmp_path / "x.png").mkdir()
    assert main(["compare", str(tmp_path), "--plot", str(tmp_path / "x.png")]) == 2
    said = capsys.readouterr().err
    assert "choose another --plot" in said and "--results_path" not in said
