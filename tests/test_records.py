"""Test run folders, args.json and results.json: nothing overwritten, nothing half written."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest

from pmi_cl.errors import UserError
from pmi_cl.utils.records import metrics
from pmi_cl.utils.records import run_record as records
from pmi_cl.utils.records.atomic import write_atomically
from pmi_cl.utils.records.run_record import RunRecord, find_run
from pmi_cl.utils.records.surroundings import surroundings
from tests.support.run_figures import figures, same_figures

INVERSION = {"images": 20, "steps": 300, "step_equivalents": 120.5, "forward_passes": 121.0, "backward_passes": 120.0}


def make_results(**changes):
    known = {
        "model": "pmi_rdfcil",
        "dataset": "seq-digits",
        "seed": 3,
        "status": "finished",
        "precision": "fp32",
        "class_il": metrics.summary([[90.0], [80.0, 70.0]], [90.0, 75.1]),
        "task_il": metrics.summary([[90.0], [90.0, 95.0]], [90.0, 92.4]),
        "seconds": {"training": 1.5},
        "peak_memory_mib": {"training": 300.0},
        "inversion": records.inversion_figures({**INVERSION, "seconds": 10.0}),
        "classes_per_task": [5, 5],
    }
    return records.build_results(**{**known, **changes})


def test_results_hold_exactly_the_agreed_keys(tmp_path):
    record = RunRecord.create(tmp_path, "pmi_rdfcil", "seq-digits", 3)
    record.write_results(make_results())
    results = record.read_results()
    head = {"schema", "model", "dataset", "seed", "backbone_weights", "status", "precision", "class_il", "task_il"}
    costs = {"seconds", "peak_memory_mib", "inversion", "stored"}
    data = {"classes_per_task", "headline_over", "images", "without_effect"}
    assert set(results) == head | data | costs | {"versions", "commit", "hardware"}
    assert results["classes_per_task"] == [5, 5]
    assert results["schema"] == 1
    for setting in ("class_il", "task_il"):
        assert set(results[setting]) == {
            "matrix",
            "micro",
            "last",
            "average",
            "forgetting",
            "bwt",
            "micro_last",
            "micro_average",
        }
    assert results["inversion"] == {**INVERSION, "seconds_per_image": 0.5}
    assert set(results["versions"]) == {"python", "torch", "numpy", "open_clip_torch", "pmi_cl"}
    assert set(results["hardware"]) == {"processor", "cores", "threads", "gpus", "memory_mib"}
    assert results["commit"] is None or re.fullmatch("[0-9a-f]{40}", results["commit"]["hash"])


def test_a_run_without_inversion_has_no_seconds_per_image():
    assert records.inversion_figures({})["seconds_per_image"] is None
    assert records.inversion_figures({"steps": 3, "seconds": 1.0})["seconds_per_image"] is None


def test_default_name_says_when_and_which_seed(tmp_path):
    folder = RunRecord.create(tmp_path / "new", "sgd", "seq-digits", 7).folder
    assert folder.parent == tmp_path / "new" / "sgd" / "seq-digits"
    assert re.fullmatch(r"seed7-\d{8}-\d{6}(-2)?", folder.name)
    named = RunRecord.create(tmp_path, "sgd", "seq-digits", 7, None, 5).folder.name
    assert re.fullmatch(r"5-tasks-seed7-\d{8}-\d{6}(-2)?", named)


def test_a_name_that_is_taken_is_never_overwritten(tmp_path):
    names = [RunRecord.create(tmp_path, "sgd", "seq-digits", 0, "mine").folder.name for _ in range(3)]
    assert names == ["mine", "mine-2", "mine-3"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="run_name"):
        RunRecord.create(tmp_path, "sgd", "seq-digits", 0, name)
    assert not any(tmp_path.iterdir())


def test_args_come_with_their_sources(tmp_path):
    record = RunRecord.create(tmp_path, "sgd", "seq-digits", 0, "mine")
    record.write_args(
        {"lr": 0.1, "widths": (1, 2), "top": float("inf")}, {"lr": "flag", "widths": "default", "top": "preset paper"}
    )
    written = json.loads((record.folder / "args.json").read_text())
    assert written["args"]["lr"] == {"value": 0.1, "source": "flag"}
    assert written["args"]["widths"]["value"] == [1, 2]
    assert written["args"]["top"] == {"value": None, "source": "preset paper"}
    assert {"versions", "commit", "hardware", "command"} <= set(written)


def test_a_run_is_found_by_name_by_place_and_by_path(tmp_path):
    for dataset, name in (("seq-digits", "one"), ("seq-cifar100", "one"), ("seq-digits", "two")):
        RunRecord.create(tmp_path, "sgd", dataset, 0, name).write_args({}, {})
    two = tmp_path / "sgd" / "seq-digits" / "two"
    for root, name in ((tmp_path, "two"), (tmp_path, "sgd/seq-digits/two"), ("nowhere", str(two))):
        assert find_run(root, name).folder == two
    with pytest.raises(UserError, match=r"several runs.*seq-cifar100/one or sgd/seq-digits/one"):
        find_run(tmp_path, "one")
    with pytest.raises(UserError, match="did you mean sgd/seq-digits/two"):
        find_run(tmp_path, "sgd/seq-digits/twoo")
    with pytest.raises(UserError, match="did you mean sgd/seq-digits/two"):
        find_run(tmp_path, "twoo")
    with pytest.raises(UserError, match="no run below"):
        find_run(tmp_path / "nowhere", "one")


def test_same_figures_ignores_the_clock_and_the_machine_only():
    slower = records.inversion_figures({**INVERSION, "seconds": 99.0})
    again = make_results(seconds={"training": 9.0}, peak_memory_mib={}, inversion=slower)
    again |= {"versions": {}, "commit": None, "hardware": {}}
    assert same_figures(make_results(), again)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"class_il": metrics.summary([[90.0], [80.0, 70.0 + 1e-13]], [90.0, 75.1])},
        {"inversion": records.inversion_figures({**INVERSION, "steps": 301, "seconds": 10.0})},
    ],
)
def test_same_figures_sees_the_last_bit(change):
    assert not same_figures(make_results(), make_results(**change))


def test_figures_leave_their_argument_alone():
    results = make_results()
    figures(results)
    assert results == make_results() and "seconds" in results


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")

    def write(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, write)
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "old"


def test_a_disk_that_fills_up_is_a_users_mistake_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match="make room"):
            write_atomically(path, lambda file: file.write(bytes(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
    assert path.read_text() == "old"


def test_a_results_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--results_path"):
        RunRecord.create(tmp_path / "file", "sgd", "seq-digits", 0)


def test_the_commit_is_the_checkouts_own_even_inside_a_git_hook(tmp_path, monkeypatch):
    before = surroundings()["commit"]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert surroundings()["commit"] == before


def test_records_are_read_without_torch():
    code = "import sys; from pmi_cl.utils.records import checkpoints, run_record; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_of_many_runs_an_error_names_a_few(tmp_path):
    for place, number in enumerate((3, 1, 4, 0, 2)):
        folder = RunRecord.create(tmp_path, "sgd", "seq-digits", 0, f"run-{number}").folder
        (folder / "args.json").write_text("{}")
        os.utime(folder, (place, place))
    with pytest.raises(UserError) as caught:
        find_run(tmp_path, "nothere")
    assert str(caught.value) == (
        "unknown run 'nothere': the newest of 5 are sgd/seq-digits/run-2, sgd/seq-digits/run-0, sgd/seq-digits/run-4"
    )
    with pytest.raises(UserError, match=r"did you mean (sgd/seq-digits/run-\d( or |\?)){3}$"):
        find_run(tmp_path, "run-9")
