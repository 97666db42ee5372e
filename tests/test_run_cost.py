"""What a run will cost: from records of earlier runs, and from a trial of a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.machine.process_settings import for_training
from pmi_cl.seeding import global_seed
from pmi_cl.utils.arguments.command_line import Resolved, resolve
from pmi_cl.utils.run.building import build_model
from pmi_cl.utils.run.run_cost import Cost, told_by_records
from pmi_cl.utils.run.trial import tried


def test_a_cost_is_told_in_the_units_that_fit() -> None:
    cost = Cost({"training": 7200.0, "inversion": 90.0, "selection": 0.1}, 1860.4, 12.3)
    told = "2.0 hours (training 2.0 hours, inversion 1.5 minutes), 1,860 MiB of memory, 12 MiB on the disk"
    assert str(cost) == told


def leave_record(run: Resolved, folder_name: str, seconds: float, **changes: object) -> None:
    """Leave the record of a run as ``run``, but for some values."""
    folder = Path(run.args.results_path) / run.model.name / run.dataset.name / folder_name
    folder.mkdir(parents=True)
    values = {**vars(run.args), **changes}
    args = {key: {"value": value, "source": "flag"} for key, value in values.items() if key != "optim_mom"}
    results = {
        "status": "finished",
        **{name: {"matrix": [[1.0] * n for n in range(1, 6)], "last": 1.0} for name in ("class_il", "task_il")},
        "inversion": {},
        "seconds": {"training": seconds},
        "peak_memory_mib": {"training": 10 * seconds},
        "hardware": {"processor": "Abacus", "threads": 2, "gpus": []},
    }
    (folder / "args.json").write_text(json.dumps({"args": args}))
    (folder / "results.json").write_text(json.dumps(results))


def test_records_of_the_same_setting_tell_what_a_run_costs(tmp_path: Path) -> None:
    """Seed, machine and output may differ. An option newer than a record has its default there."""
    run = resolve(["--model", "sgd", "--dataset", "seq-digits", "--results_path", str(tmp_path)])
    assert told_by_records(run) == f"no finished run of this setting below {tmp_path}: --estimate times a few steps"
    leave_record(run, "a", 60.0, seed=3, device="cpu")
    leave_record(run, "b", 120.0, seed=4, tensorboard=False)
    for name, other in {"c": {"lr": 0.5}, "d": {"train_per_class": 5}, "e": {"backbone": "resnet18"}}.items():
        leave_record(run, name, 9000.0, **other)
    (tmp_path / "sgd" / "seq-digits" / "e" / "results.json").write_text("{")
    told = told_by_records(run)
    assert told.startswith("1.5 minutes (training 1.5 minutes), 1,200 MiB of memory, ")
    assert told.endswith("as 2 earlier runs of this setting took on Abacus (2 threads)")


def test_check_tells_how_a_run_can_be_estimated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "sgd", "--dataset", "seq-digits", "--check", "--results_path", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("estimate: no finished run of this setting below ")
    assert not list(tmp_path.iterdir())


SMALL = [
    *("--dataset", "seq-digits", "--train_per_class", "8", "--n_classes", "6", "--n_tasks", "3", "--n_epochs", "4"),
    *("--device", "cpu", "--batch_size", "8"),
]


@pytest.mark.parametrize(
    ("words", "phases"),
    [
        (["--model", "sgd"], {"training", "evaluation"}),
        (["--model", "joint"], {"training", "evaluation"}),
        (
            ["--model", "rdfcil", "--generator_steps", "900", "--generator_batch", "4"],
            {"training", "evaluation", "generator"},
        ),
        (
            ["--model", "pmi_rdfcil", "--inv_steps", "900", "--buffer_images", "16", "--cont_epochs", "2"],
            {"training", "evaluation", "inversion", "selection", "statistics"},
        ),
    ],
)
def test_a_trial_estimates_every_phase(words: list[str], phases: set[str]) -> None:
    """Long loops are in it with all of their steps, of which a few were taken."""
    for_training(compiles=False)
    run = resolve([*words, *SMALL])
    with global_seed(0, "trial"):
        dataset = run.dataset.load()(run.args, torch.device("cpu"))
        model = build_model(run, dataset)
        cost = tried(model, dataset, run.args, 1.0, seconds_of_training=0.0)
    assert {name for name, seconds in cost.seconds.items() if seconds > 0} == phases
    steps = {"generator": 900, "inversion": 900}
    for name in phases & steps.keys():  # of two tasks, at no less than a tenth of a millisecond a step
        assert cost.seconds[name] > 2 * steps[name] * 1e-4
    assert cost.memory_mib > 50 and cost.disk_mib > 128
