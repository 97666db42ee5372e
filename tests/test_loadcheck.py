"""Test starting from the checkpoint of another run.

One from mid-inversion and ones with wrong contents are refused, and nothing is left behind.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pmi_cl.cli import main
from pmi_cl.inversion.engine.engine import Inversion
from pmi_cl.models.inverting import InversionRunner
from pmi_cl.utils.records import checkpoints
from pmi_cl.utils.run.interrupts import Interrupted
from tests.support.command_runs import place_in, quick, results_in
from tests.support.run_figures import same_figures


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a short run that keeps a checkpoint of each task. Return its folder."""
    code, folder = quick("pmi_rdfcil", tmp_path_factory.mktemp("runs"), "kept", "--savecheck", "task")
    assert code == 0
    return folder


def test_a_checkpoint_from_mid_inversion_is_for_its_own_run_alone(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is stopped after two steps of its inversion.

    Another run leaves the checkpoint alone; its own run goes on with it.
    """

    def two_steps(self: InversionRunner, name: str, inversion: Inversion, rate: str = "inv_lr") -> None:
        self.current, steps = inversion, inversion.run()
        next(steps), next(steps)
        self.method.host.save()  # type: ignore[attr-defined]
        raise Interrupted(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(InversionRunner, "run", two_steps)
        code, folder = quick("pmi_rdfcil", tmp_path / "runs", "stopped")
    assert code == 143 and place_in(folder)[1]["inversion"]["report"]["steps"] == 2
    capsys.readouterr()
    path = folder / "checkpoint.pt"
    assert quick("pmi_rdfcil", tmp_path / "others", "run", "--loadcheck", str(path))[0] == 2
    said = f"pmi-cl: error: {path} was written within a task: go on with that run itself, --resume RUN\n"
    assert capsys.readouterr() == ("", said)
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]
    assert main(["--results_path", str(tmp_path / "runs"), "--resume", "stopped"]) == 0
    assert same_figures(results_in(folder), results_in(kept))


def changed(*place: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """Put another value into a checkpoint, or take it away (None)."""

    def change(state: dict[str, Any]) -> None:
        for name in place[:-1]:
            state = state[name]
        if to is None:
            del state[place[-1]]
        else:
            state[place[-1]] = to

    return change


NO_RUN = "lacks the state of a run: give a checkpoint.pt that pmi-cl wrote"
OTHER = "does not fit this method ("
CONTENTS = {
    "no training": (changed("training", to=None), NO_RUN),
    "training is text": (changed("training", to="x"), NO_RUN),
    "no position": (changed("training", "position", to=None), NO_RUN),
    "a task that is text": (changed("training", "position", "task", to="one"), NO_RUN),
    "a task that is not there": (changed("training", "position", "task", to=3), OTHER + "ValueError)"),
    "a task less than trained": (changed("training", "class_il", to=[]), OTHER + "ValueError)"),
    "an accuracy in words": (changed("training", "class_il", to=[["all"]]), OTHER + "ValueError)"),
    "a position with more": (changed("training", "position", "year", to=1), OTHER + "TypeError)"),
    "no clock": (changed("phases", to=None), OTHER + "KeyError)"),
    "no method": (changed("training", "method", to=None), OTHER + "KeyError)"),
    "a method in words": (changed("training", "method", to="x"), OTHER + "TypeError)"),
    "no network": (changed("training", "method", "net", to={}), OTHER + "RuntimeError)"),
    "no Gaussians": (changed("training", "method", "gaussians", to={}), OTHER + "KeyError)"),
    "weights of another size": (
        changed("training", "method", "net", "head.tasks.0.weight", to=torch.zeros(9, 64)),
        OTHER + "ValueError)",
    ),
}


@pytest.mark.parametrize("contents", CONTENTS)
def test_a_checkpoint_with_wrong_contents_is_refused(
    contents: str, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = CONTENTS[contents]
    state = torch.load(kept / "checkpoint-task1.pt", weights_only=True)
    change(state)
    checkpoints.save(tmp_path / "wrong.pt", state)
    code, _ = quick("pmi_rdfcil", tmp_path / "a" / "b", "run", "--loadcheck", str(tmp_path / "wrong.pt"))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"pmi-cl: error: {tmp_path / 'wrong.pt'} ") and message in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["wrong.pt"]


OTHER_MEMORIES = [
    ("pmi_rdfcil", "inv_colour", 1, 0),
    ("pmi_rdfcil", "cfs", 1, 0),
    ("pmi_rdfcil", "train_per_class", 16, 15),
    ("pmi_vpt", "cfs", 1, 0),
    ("pmi_vpt", "inv_axis", "channel", "token"),
    ("pmi_vpt", "synthetic_last_task", 0, 1),
]


@pytest.mark.parametrize(("method", "flag", "value", "other"), OTHER_MEMORIES)
def test_a_checkpoint_of_other_images_or_of_a_memory_of_another_kind_is_refused(
    method: str, flag: str, value: Any, other: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, folder = quick(method, tmp_path / "runs", "first", **{flag: value, "savecheck": "task"})
    assert code == 0
    path = folder / "checkpoint-task1.pt"
    capsys.readouterr()
    assert quick(method, tmp_path / "others", "run", "--loadcheck", str(path), **{flag: other})[0] == 2
    both = f"{path} was written with {flag} {value}, this run has {flag} {other}"
    said = f"pmi-cl: error: {both}: use the same as then, or another checkpoint"
    assert capsys.readouterr().err == said + "\n"
    assert not (tmp_path / "others").exists()


def test_held_out_images_are_those_of_the_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under another seed, images that were trained on would be evaluated on."""
    held = {"validation": 0.25, "savecheck": "task"}
    code, folder = quick("sgd", tmp_path / "runs", "first", "--seed", "1", **held)
    assert code == 0
    path = str(folder / "checkpoint-task1.pt")
    capsys.readouterr()
    assert quick("sgd", tmp_path / "others", "run", "--loadcheck", path, "--seed", "2", **held)[0] == 2
    assert "was written with seed 1, this run has seed 2" in capsys.readouterr().err
    assert quick("sgd", tmp_path / "others", "run", "--loadcheck", path, "--seed", "1", **held)[0] == 0
