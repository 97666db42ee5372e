"""Values that would mean nothing are refused, and a rate that is too high is named by its flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmi_cl.cli import main
from pmi_cl.errors import RunFailed
from pmi_cl.inversion.engine.descent import NonFiniteInversion
from pmi_cl.inversion.engine.engine import Inversion
from tests.support.image_sets import make_folder
from tests.support.small_runs import begin, start, train_task, words_of


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("sgd", {"lr_milestones": "0.9,0.2"}, "--lr_milestones 0.9,0.2: give them in rising order"),
        ("rdfcil", {"lr_milestones": "0.9,0.2"}, "--lr_milestones 0.9,0.2: give them in rising order"),
        ("pmi_rdfcil", {"inv_roll": 16}, "--inv_roll 16: the images have 16 pixels a side, give fewer"),
        ("pmi_vpt", {"pmi_grids": 400, "backbone": "clip-tiny"}, "--pmi_grids 400: it must be between 1 and 64"),
        ("vpt", {"vpt_tokens": 10_000, "backbone": "clip-tiny"}, "--vpt_tokens 10000: it must be between 1 and 1000"),
    ],
)
def test_a_value_that_means_nothing_is_refused(
    method: str, flags: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {name: value for name, value in flags.items() if name == "backbone"}
    words = words_of(method, **known)
    for name in flags.keys() - known:
        if f"--{name}" in words:
            place = words.index(f"--{name}")
            del words[place : place + 2]
        words += [f"--{name}", str(flags[name])]
    assert main([*words, "--results_path", str(tmp_path), "--check"]) == 2
    assert capsys.readouterr().err == f"pmi-cl: error: {message}\n"


@pytest.mark.parametrize(
    ("name", "flag"), [("the full model", "--inv_lr"), ("layer 3 of 10, counted from 0,", "--pmi_lr")]
)
def test_an_inversion_that_diverges_names_its_flag(name: str, flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(self: Inversion) -> None:
        raise NonFiniteInversion("not finite: lower it", name)

    training = start("pmi_rdfcil")
    train_task(training, 0).end_task(training.shown)
    monkeypatch.setattr(Inversion, "run", diverged)
    with pytest.raises(RunFailed, match=rf"not finite: lower it \({flag}\)"):
        begin(training, 1)


def test_check_says_the_tasks_that_a_folder_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "sgd", "--dataset", "seq-folder", "--data_dir", str(make_folder(tmp_path / "images"))]
    assert main([*words, "--results_path", str(tmp_path / "runs"), "--check"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["n_tasks", "2", "data", "set"] in rows
