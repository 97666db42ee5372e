"""Test sweeps: what is typed, what a file says, names, what is kept, and the processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pmi_cl.cli import main
from pmi_cl.registry.catalogue import INSTALLED
from pmi_cl.utils.run.interrupts import Interrupts
from pmi_cl.utils.sweeps.planned_runs import Arm, PlannedRun, Sweep, plan, run_name
from pmi_cl.utils.sweeps.processes import Share, Workers, last_line, shares
from pmi_cl.utils.sweeps.standing import FINISHED, NEW, UNFINISHED, command_of, standing
from pmi_cl.utils.sweeps.sweep_file import read_sweep
from pmi_cl.utils.sweeps.sweep_words import read_arm, read_grid, read_shared

TINY = {"n_classes": "2", "n_tasks": "1", "train_per_class": "8", "batch_size": "8", "backbone": "resnet20"}
QUIET = {"tensorboard": "0", "savemodel": "0", "num_threads": "1", "n_epochs": "1"}
STUDY = """
about: two methods
models:
  - sgd
  - {model: pmi_rdfcil, name: ours, model_config: smoke, lr_milestones: [0.2, 0.4]}
datasets: seq-digits
flags: {n_classes: 4, n_tasks: 2, inv_colour: true}
grid:
  lr: [0.01, 0.1]
"""


@pytest.mark.parametrize(
    ("text", "arm"),
    [
        ("sgd", Arm("sgd")),
        ("sgd:lr=0.1", Arm("sgd", {"lr": "0.1"})),
        ("sgd:lr_milestones=0.2,0.4,lr=1", Arm("sgd", {"lr_milestones": "0.2,0.4", "lr": "1"})),
    ],
)
def test_a_method_may_have_flags_of_its_own(text: str, arm: Arm) -> None:
    assert read_arm(text) == arm


def test_flags_of_every_run_and_a_grid() -> None:
    assert read_shared(["--lr", "0.1", "--warmup_lrs=0.2", "0.4"]) == {"lr": "0.1", "warmup_lrs": "0.2,0.4"}
    assert read_grid(["lr=0.01,0.1", "seedless=1"]) == {"lr": ["0.01", "0.1"], "seedless": ["1"]}


@pytest.mark.parametrize(
    ("arm", "point", "name"),
    [
        (Arm("sgd"), {}, "seed3"),
        (Arm("pmi_rdfcil", {"model_config": "paper", "inv_steps": "9"}), {}, "paper-inv_steps=9-seed3"),
        (Arm("sgd", {"lr": "1"}, "mine"), {"batch_size": "8"}, "mine-batch_size=8-seed3"),
        (Arm("sgd", {"base_path": "/a b/c"}), {}, "base_path=_a_b_c-seed3"),
    ],
)
def test_runs_have_readable_names(arm: Arm, point: dict[str, str], name: str) -> None:
    assert run_name(arm, point, 3) == name


def test_all_combinations_are_planned_seed_by_seed() -> None:
    sweep = Sweep([Arm("sgd"), Arm("joint")], ["seq-digits"], [0, 1], TINY, {"lr": ["0.1", "0.2"]})
    runs = plan(sweep, Path("there"), INSTALLED)
    assert [str(run) for run in runs][:5] == [
        "sgd/seq-digits/lr=0.1-seed0",
        "sgd/seq-digits/lr=0.2-seed0",
        "joint/seq-digits/lr=0.1-seed0",
        "joint/seq-digits/lr=0.2-seed0",
        "sgd/seq-digits/lr=0.1-seed1",
    ]
    assert (
        len(runs) == 8 and runs[1].resolved.args.lr == 0.2 and runs[1].folder == Path("there", *str(runs[1]).split("/"))
    )


def test_a_sweep_can_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    sweep = read_sweep(tmp_path / "study.yaml")
    own = {"model_config": "smoke", "lr_milestones": "0.2,0.4"}
    assert sweep == Sweep(
        [Arm("sgd"), Arm("pmi_rdfcil", own, "ours")],
        ["seq-digits"],
        [0, 1, 2],
        {"n_classes": "4", "n_tasks": "2", "inv_colour": "1"},
        {"lr": ["0.01", "0.1"]},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- sgd", "a sweep has lines such as"),
        ("model: sgd", "unknown key 'model': did you mean models?"),
        ("models: {sgd: 1}", "models: write a list"),
        ("models: [{name: x}]", "write a method, or a mapping with 'model: NAME'"),
        ("models: [{model: sgd, seed: 1}]", "--seed is given by the sweep itself, leave it out"),
        ("models: [{model: sgd, lr: {a: 1}}]", "a flag has a value or a list of values"),
        ("flags: [lr]", "write 'flag: value' lines"),
        ("grid: {lr: 0.1}", "write a list of values"),
        ("grid: {seed: [1]}", "--seed is given by the sweep itself"),
        ("seeds: [one]", "seeds: write whole numbers, here is one"),
    ],
)
def test_files_that_are_no_sweeps(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_text(text)
    assert main(["sweep", str(tmp_path / "study.yaml")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--models sgd", "--datasets is missing"),
        ("--datasets seq-digits", "--models is missing"),
        ("--models", "--models: give a value"),
        ("--models sgd --models joint", "--models is given twice: keep one"),
        ("--models sgd:lr --datasets seq-digits", "--models sgd:lr: write flag=value, here is 'lr'"),
        ("--models sgd:lr=1,lr=2 --datasets seq-digits", "lr is given twice, keep one"),
        ("--models sdg --datasets seq-digits", "sdg on seq-digits, seed0: unknown model 'sdg': did you mean sgd?"),
        ("--models sgd --datasets seq-digits --grid lr=0", "--lr 0: it must be above 0"),
        ("--models sgd:lr=1 --datasets seq-digits --grid lr=1,2", "--grid lr: sgd has this flag already, keep one"),
        ("--models sgd sgd --datasets seq-digits", "two runs would be called sgd/seq-digits/seed0"),
        ("--models sgd --datasets seq-digits --seeds x", "--seeds x: "),
        ("--models sgd --datasets seq-digits --jobs 0", "--jobs 0: "),
        ("--models sgd --datasets seq-digits -- 3", "behind --: '3' stands alone, write --flag value"),
        ("--models sgd --datasets seq-digits -- --seed 3", "--seed is given by the sweep itself"),
        ("no-such.yaml", "cannot read no-such.yaml"),
    ],
)
def test_words_that_are_no_sweep(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_several_seeds_of_a_run_point_to_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "sgd", "--dataset", "seq-digits", "--seed", "0", "1", "2"]) == 2
    assert "several seeds: pmi-cl sweep --models MODEL --datasets DATASET --seeds 0 1 2" in capsys.readouterr().err


def test_threads_and_gpus_are_shared_out() -> None:
    assert shares(1, (), False) == [Share()]
    assert [share.gpu for share in shares(3, (4, 5), True)] == [4, 5, 4]
    assert all(share.words[0].startswith("--num_threads=") for share in shares(2, (), False))
    assert shares(2, (), True)[0].words == [] and Share(gpu=3).environment["CUDA_VISIBLE_DEVICES"] == "3"


@pytest.mark.parametrize(
    ("text", "last"), [("", ""), ("one\ntwo\n\n", "two"), ("one\n 10%|\r 20%|   ", "20%|"), ("a" * 5000 + "\nz", "z")]
)
def test_the_last_line_of_a_log(text: str, last: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == last


def planned(folder: Path, model: str = "sgd", **flags: str) -> PlannedRun:
    """Return one tiny run below a folder."""
    sweep = Sweep([Arm(model, name="run")], ["seq-digits"], [0], {**TINY, **QUIET, **flags})
    return plan(sweep, folder, INSTALLED)[0]


def record(run: PlannedRun, status: str) -> None:
    """Leave the record of a run as if it had been carried out."""
    args = {name: {"value": value, "source": "flag"} for name, value in vars(run.resolved.args).items()}
    run.folder.mkdir(parents=True)
    (run.folder / "args.json").write_text(json.dumps({"args": args}))
    (run.folder / "results.json").write_text(json.dumps({"status": status}))


def test_what_is_finished_is_kept_and_what_is_stopped_goes_on(tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert standing(run) == NEW and command_of(run) == list(run.words)
    record(run, "interrupted")
    assert standing(run) == NEW  # it has no checkpoint
    (run.folder / "checkpoint.pt").touch()
    assert standing(run) == UNFINISHED and command_of(run) == ["--resume", str(run.folder)]
    (run.folder / "results.json").write_text(json.dumps({"status": "finished"}))
    assert standing(run) == FINISHED


def test_what_was_left_before_its_first_checkpoint_makes_room(tmp_path: Path) -> None:
    run = planned(tmp_path)
    record(run, "failed")
    assert command_of(run) == list(run.words) and not run.folder.exists()
    assert [path.name.split("-stopped-")[0] for path in run.folder.parent.iterdir()] == ["run-seed0"]


def test_a_folder_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(planned(tmp_path, lr="0.2"), "finished")
    words = ["--models", "sgd", "--datasets", "seq-digits", "--seeds", "0", "--results_path", str(tmp_path)]
    run = planned(tmp_path)
    run.folder.rename(run.folder.with_name("seed0"))
    flags = [f"--{name}={value}" for name, value in {**TINY, **QUIET}.items()]
    assert main(["sweep", *words, "--", *flags]) == 2
    assert "is a run with --lr 0.2, not 0.05: choose another --results_path" in capsys.readouterr().err


def test_a_dry_run_lists_and_begins_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "--models", "sgd", "joint", "--datasets", "seq-digits", "--seeds", "0", "1"]
    words += ["--results_path", str(tmp_path / "runs")]
    assert main([*words, "--dry_run", "1"]) == main([*words, "--check"]) == 0
    text = capsys.readouterr().out
    assert text.count("run      sgd/seq-digits/seed1\n") == 2 and "4 runs, 4 of them to be carried out" in text
    assert not (tmp_path / "runs").exists()


def test_a_run_that_fails_stops_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    flags = [f"--{name}={value}" for name, value in {**TINY, **QUIET}.items()]
    words = ["sweep", "--models", "sgd:lr=1e20,n_epochs=3", "sgd", "--datasets", "seq-digits", "--seeds", "4"]
    assert main([*words, "--results_path", str(runs), "--jobs", "2", "--", *flags]) == 1
    out, err = capfd.readouterr()
    assert "`sgd`" in out and "| 4 " in out  # the table of what is finished
    assert "1 of 2 runs failed" in err and "sgd/seq-digits/lr=1e20-n_epochs=3-seed4" in err
    found: dict[str, Any] = json.loads((runs / "sweep.json").read_text())["runs"]
    bad, good = found["sgd/seq-digits/lr=1e20-n_epochs=3-seed4"], found["sgd/seq-digits/seed4"]
    assert (bad["status"], good["status"], good["exit_code"]) == ("failed", "finished", 0)
    assert "pmi-cl: error:" in bad["last_line"]


def test_a_signal_leaves_every_run_resumable(tmp_path: Path) -> None:
    run = planned(tmp_path, n_epochs="100000")
    workers = Workers([Share()], tmp_path / "logs")
    with Interrupts() as interrupts:

        def stop_once_it_trains() -> None:
            if (run.folder / "args.json").exists():
                interrupts.requested = 15

        workers.carry_out([run, planned(tmp_path, "joint")], interrupts, [stop_once_it_trains])
    assert [outcome.exit_code for outcome in workers.outcomes.values()] == [143]
    assert standing(run) == UNFINISHED
