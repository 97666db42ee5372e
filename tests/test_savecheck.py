"""Checkpoints that are kept, runs that start from them, and checkpoints that are refused."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.utils.records import checkpoints
from tests.support.command_runs import headline_of, quick, results_in
from tests.support.run_figures import same_figures
from tests.support.small_runs import METHODS


@pytest.fixture(scope="module")
def results_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def kept(results_path: Path) -> Path:
    """Make a short run that keeps a checkpoint of each task. Return its folder."""
    code, folder = quick("pmi_rdfcil", results_path, "kept", "--savecheck", "task")
    assert code == 0
    return folder


def test_savecheck_keeps_what_it_says(kept: Path, tmp_path: Path) -> None:
    assert {path.name for path in kept.glob("*.pt")} == {"checkpoint.pt", "checkpoint-task1.pt", "checkpoint-task2.pt"}
    for choice, expected in (("none", set()), ("last", {"checkpoint.pt"})):
        code, folder = quick("sgd", tmp_path, choice, "--savecheck", choice)
        assert code == 0 and {path.name for path in folder.glob("*.pt*")} == expected


def test_a_run_goes_on_from_another_runs_checkpoint(kept: Path, tmp_path: Path) -> None:
    """Seed and arguments are the same from the first task on, so the figures are, too."""
    code, folder = quick("pmi_rdfcil", tmp_path, "loaded", "--loadcheck", str(kept / "checkpoint-task1.pt"))
    assert code == 0 and same_figures(results_in(folder), results_in(kept))


def test_a_run_that_was_to_stop_early_goes_on(kept: Path, tmp_path: Path) -> None:
    code, folder = quick("pmi_rdfcil", tmp_path, "early", stop_after=1)
    assert code == 0 and len(results_in(folder)["class_il"]["matrix"]) == 1
    assert main(["--results_path", str(tmp_path), "--resume", "early", "--stop_after", "none"]) == 0
    assert same_figures(results_in(folder), results_in(kept))


def test_a_finished_run_that_is_resumed_says_its_figures_again(
    kept: Path, results_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results_in(kept)
    assert main(["--results_path", str(results_path), "--resume", "kept", "--non_verbose", "1"]) == 0
    assert capsys.readouterr().out == headline_of(before)
    assert same_figures(before, results_in(kept))
    assert main(["--results_path", str(results_path), "--resume", "kept", "--progress", "0"]) == 0
    assert "already finished" in capsys.readouterr().out


class Bomb:
    """An object whose unpickling creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def another(changes: dict[str, Any]) -> Callable[[Path, Path], None]:
    """Write the checkpoint as a run with other values would have written it."""

    def write(path: Path, target: Path) -> None:
        checkpoints.save(path, {**torch.load(path, weights_only=True), **changes})

    return write


def bare_pickle(path: Path, target: Path) -> None:
    path.write_bytes(pickle.dumps({"format": checkpoints.FORMAT, "net": Bomb(target)}))


def pickle_in_a_zip(path: Path, target: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "net": Bomb(target)}, path)


def compressed(part: str) -> Callable[[Path, Path], None]:
    """Compress the file and let one of its parts be two megabytes of zeros."""

    def write(path: Path, target: Path) -> None:
        saved = io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in source.namelist():
                archive.writestr(name, bytes(1 << 21) if name.endswith(part) else source.read(name))

    return write


def longer_than_the_file(path: Path, target: Path) -> None:
    """Let several entries of the archive's directory stand for the same bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        big = max(archive.infolist(), key=lambda part: part.file_size)
        for number in range(50):
            entry = copy.copy(big)
            entry.filename = f"{big.filename}-{number}"
            archive.filelist.append(entry)
        archive.writestr("more", b"")  # or the directory is not written again


def not_finite(path: Path, target: Path) -> None:
    state = torch.load(path, weights_only=True)
    weight = next(iter(state["training"]["method"]["net"].values()))
    weight[(0,) * weight.ndim] = torch.nan
    torch.save(state, path)


DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "model": (another({"model": "sgd"}), "was written with model sgd, this run has model pmi_rdfcil"),
    "data set": (
        another({"dataset": "seq-cifar100"}),
        "was written with dataset seq-cifar100, this run has dataset seq-digits",
    ),
    "backbone": (
        another({"backbone": "resnet32"}),
        "was written with backbone resnet32, this run has backbone resnet20",
    ),
    "tasks": (another({"n_tasks": 4}), "was written with n_tasks 4, this run has n_tasks 2"),
    "order": (
        another({"class_order": [3, 2, 1, 0]}),
        "was written with class_order [3, 2, 1, 0], this run has class_order [0, 1, 2, 3]",
    ),
    "version": (another({"format": "pmi-cl checkpoint 99"}), "has the format 'pmi-cl checkpoint 99'"),
    "truncated": (lambda path, _: os.truncate(path, path.stat().st_size // 2), "is truncated or damaged"),
    "empty": (lambda path, _: path.write_bytes(b""), "is not a checkpoint of pmi-cl"),
    "text": (lambda path, _: path.write_text("hello"), "is not a checkpoint of pmi-cl"),
    "missing": (lambda path, _: path.unlink(), "no checkpoint at"),
    "compressed pickle": (compressed("data.pkl"), "data.pkl is compressed or encrypted, and torch.save does neither"),
    "compressed storage": (compressed("/data/0"), "is compressed or encrypted, and torch.save does neither"),
    "parts that overlap": (longer_than_the_file, "its parts are longer than the file"),
    "not finite": (not_finite, "holds numbers that are not finite (in method.net."),
    "malicious pickle": (bare_pickle, "was refused and nothing in it was run"),
    "malicious zip": (pickle_in_a_zip, "was refused and nothing in it was run"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_does_not_fit_is_refused(
    damage: str, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, target = tmp_path / "checkpoint.pt", tmp_path / "target"
    path.write_bytes((kept / "checkpoint-task1.pt").read_bytes())
    spoil, message = DAMAGES[damage]
    spoil(path, target)
    code, _ = quick("pmi_rdfcil", tmp_path / "runs", "run", "--loadcheck", str(path))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("pmi-cl: error: ") and message in err
    assert {entry.name for entry in tmp_path.iterdir()} <= {"checkpoint.pt"}


def test_a_checkpoint_of_another_method_is_refused(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in METHODS:
        if method != "pmi_rdfcil":
            assert quick(method, tmp_path / "runs", "run", "--loadcheck", str(kept / "checkpoint.pt"))[0] == 2
            assert f"was written with model pmi_rdfcil, this run has model {method}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_from_within_a_task_is_for_its_own_run_alone(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(kept / "checkpoint-task1.pt", weights_only=True)
    state["training"]["position"].update(phase="train", epoch=0, step=1)
    checkpoints.save(tmp_path / "within.pt", state)
    assert quick("pmi_rdfcil", tmp_path / "runs", "run", "--loadcheck", str(tmp_path / "within.pt"))[0] == 2
    assert "was written within a task: go on with that run itself, --resume RUN" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["within.pt"]


EDITS = {
    "lr": 0.123,
    "inv_steps": 7,
    "lr_milestones": [0.5],
    "pmi_boost": True,
    "evaluate_unseen": None,
    "optim_mom": None,
}


def test_an_edited_record_is_noticed_when_the_run_goes_on(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value is changed, or taken away (None) so that it would have its default."""
    folder = shutil.copytree(kept, tmp_path / "edited")
    whole = (folder / "args.json").read_text()
    was = {name: entry["value"] for name, entry in json.loads(whole)["args"].items()}
    for name, value in EDITS.items():
        record = json.loads(whole)
        if value is None:
            del record["args"][name]
        else:
            record["args"][name]["value"] = value
        (folder / "args.json").write_text(json.dumps(record))
        assert main(["--resume", str(folder), "--check"]) == (0 if value is None else 2), name  # defaults are the same
        said = capsys.readouterr().err
        if value is not None:
            assert said.count("\n") == 1 and f"checkpoint.pt was written with --{name} " in said
            assert f"args.json has {name} {int(value) if isinstance(value, bool) else value}".split("[")[0] in said
            assert str(was[name]).strip("[]")[:5] in said or isinstance(value, bool)
    (folder / "args.json").write_text(whole)
    assert main(["--resume", str(folder), "--check"]) == 0
